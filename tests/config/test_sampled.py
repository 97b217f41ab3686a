"""A sampling that draws from some methods: what is made, what is checked, what is left alone."""

import copy
from typing import Any

import pytest

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.estimate import datasets, jobs
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL

EDM = {"diffusion": {"path": "edm", "prediction": "edm"}}


def plan(**methods: list[str] | None) -> Plan:
    """DDPM, and EDM where a sampling draws from it, in samplings of the given methods."""
    values: dict[str, Any] = copy.deepcopy(MINIMAL)
    ancestral, heun = values["sampling"]["ancestral"], {"sampler": "edm", "nfe": [9], "images": 100}
    values["methods"]["edm"] = {"objective": "edm", "variants": {"main": {"run": EDM}}}
    values["sampling"] = {
        name: {**(heun if name.startswith("heun") else ancestral), "methods": who} for name, who in methods.items()
    }
    return Plan(parse_experiment(values))


def test_each_method_is_made_and_measured_in_its_own_samplings() -> None:
    one = plan(ancestral=["ddpm"], heun=["edm"])
    made = {folder for folder, _ in one.stage_configs() if folder.endswith("/errors")}
    assert made == {"digits/ddpm/paper/s0/ancestral/errors", "digits/edm/main/s0/heun/errors"}
    assert sorted(one.records("scores")) == [
        "results/tiny/digits/ddpm/paper/s0/ancestral/scores/scores.parquet",
        "results/tiny/digits/edm/main/s0/heun/scores/scores.parquet",
    ]
    assert len(one.manifests("sample")) == jobs(one)["sample"] == 2
    assert [samplings_of(one.summary(), m) for m in ("ddpm", "edm")] == [["ancestral"], ["heun"]]
    assert datasets(one)[0].cells == 3  # DDPM at 20 and 100 calls, EDM at 9


def test_a_sampler_is_checked_on_the_paths_of_its_own_methods() -> None:
    with pytest.raises(
        BadConfig, match=r"^sampling\.heun cannot sample ddpm/paper: sampler edm is for diffusion\.path"
    ):
        plan(ancestral=None, heun=None)
    plan(ancestral=None, heun=["edm"])


def test_who_is_sampled_is_no_part_of_what_is_drawn() -> None:
    """So a method that joins reruns nothing of the others."""
    few, all_ = (dict(plan(ancestral=who, heun=["edm"]).stage_configs()) for who in (["ddpm"], None))
    assert few.items() <= all_.items()
    assert len(all_) == len(few) + 3


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"ancestral": ["dppm"]}, r"^sampling\.ancestral\.methods: no method 'dppm'; did you mean 'ddpm'\?$"),
        ({"ancestral": ["ddpm"]}, r"^methods\.edm: no sampling draws from it; add it to the methods of one\.$"),
        ({"ancestral": None, "heun": ["edm", "edm"]}, "a name stands twice"),
        ({"ancestral": None, "heun": []}, r"sampling\.heun\.methods: .* at least 1"),
    ],
)
def test_mistakes_are_one_sentence(methods: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        plan(**methods)
