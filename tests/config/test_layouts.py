"""How a training is spread says nothing of what it is, and is refused where it cannot be."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.config.plan import Plan
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import changed, plan

SPREAD = {"processes": 4, "nodes": 2, "micro_batch": 8}
PLACE = SimpleNamespace(dataset="digits", method="ddpm", variant="paper", seed=0)


def train_stage(of: Plan) -> dict[str, Any]:
    return dict(of.stage_configs())["digits/ddpm/paper/s0/train"]


def test_the_identity_of_a_training_does_not_know_how_it_is_spread() -> None:
    alone, spread = plan(), plan(changed("runtime", SPREAD))
    assert train_stage(spread)["config"] == train_stage(alone)["config"]
    assert train_stage(spread)["runtime"] == {**train_stage(alone)["runtime"], "micro_batch": 8}
    assert (alone.threads(PLACE), spread.threads(PLACE)) == (1, 4)


@pytest.mark.parametrize(
    ("runtime", "sentence"),
    [
        ({"processes": 3}, "digits/ddpm/paper: training.batch_size is 64, which 3 processes cannot share evenly"),
        ({"processes": 4, "nodes": 3}, "processes 4 cannot be spread evenly over nodes 3"),
        ({"micro_batch": 48}, "1 process with runtime.micro_batch 48 cannot share evenly"),
    ],
)
def test_layouts_that_cannot_be_are_refused_before_anything_runs(runtime: dict[str, int], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        plan(changed("runtime", runtime))


def test_groups_stay_whole() -> None:
    values = changed("methods/ddpm/objective", "ddpm-reg")
    values["base"]["training"] = {"mmd_group": 32}
    values["runtime"] = {"processes": 2}
    plan(values)
    values["runtime"] = {"processes": 4}
    with pytest.raises(BadConfig, match=r"16 images at once .* would split groups of training.mmd_group 32"):
        plan(values)
