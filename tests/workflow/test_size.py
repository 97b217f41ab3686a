"""Large plans: as many jobs as are expected, in times that are asserted in CPU seconds and with room to spare.

`python -m tests.sizes` measures and prints them; docs/cluster.md has the numbers.
"""

import shutil
from collections import Counter
from types import SimpleNamespace

import pytest

from pipeline_lib.config import plan as plan_module
from pipeline_lib.config.models import Experiment, parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.estimate import jobs
from tests import sizes


@pytest.fixture(scope="module")
def large() -> Plan:
    return Plan(parse_experiment(sizes.large(sizes.SEEDS)))


def test_ten_thousand_jobs_are_announced(large: Plan) -> None:
    """Per seed, what paper.yaml has for each of its three; the rest has one seed, or is made once."""
    three, four = (Counter(jobs(Plan(parse_experiment(sizes.large(n))))) for n in (3, 4))
    expected = {rule: three[rule] + (sizes.SEEDS - 3) * (four[rule] - three[rule]) for rule in four}
    assert jobs(large) == expected
    assert sum(expected.values()) >= 10_000


def test_an_instance_is_found_by_its_name_at_once(large: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake asks for it several times a job: a walk through all of them would be quadratic."""
    one = large.instances[-1]
    monkeypatch.setattr(large, "instances", [])
    wildcards = SimpleNamespace(dataset=one.dataset, method=one.method, variant=one.variant, seed=str(one.seed))
    assert large.threads(wildcards) == one.run.training.threads


def test_what_a_plan_asks_does_not_grow_with_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a sampling draws from a method is the same for all seeds."""
    asked: Counter[str] = Counter()
    original = Experiment.sampled

    def counted(self: Experiment, method: str) -> object:
        asked[method] += 1
        return original(self, method)

    monkeypatch.setattr(Experiment, "sampled", counted)
    counts = []
    for seeds in (3, 9):
        asked.clear()
        list(Plan(parse_experiment(sizes.large(seeds))).stage_configs())
        counts.append(dict(asked))
    assert counts[0] == counts[1]


def test_what_seeds_share_is_made_into_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further seed adds the configurations of its trainings; those of its samples and errors are there already."""
    made: list[int] = []
    original = plan_module._json
    monkeypatch.setattr(plan_module, "_json", lambda content: (made.append(1), original(content))[1])
    counts, trainings = [], []
    for seeds in (3, 5):
        made.clear()
        one = Plan(parse_experiment(sizes.large(seeds)))
        one.write()
        counts.append(len(made))
        trainings.append(len(one.instances))
        shutil.rmtree("results")
    assert counts[1] - counts[0] == trainings[1] - trainings[0] > 0
