"""Samplings with grids and controls: the points, which point compares with which, and plain refusals."""

import copy
from typing import Any

import pytest

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.config.sampled import pictured
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL

ETA = {"eta": {"key": "sampler.eta", "values": [0, 0.2, 1.0]}}
DDIM = {"sampler": "ddim", "nfe": [10], "images": 100}
SCALED = {**DDIM, "control": "ddim", "corrections": [{"name": "epsilon-scaling", "b": 1.01}]}


def plan(**samplings: dict[str, Any]) -> Plan:
    return Plan(parse_experiment({**copy.deepcopy(MINIMAL), "sampling": samplings}))


def test_a_grid_is_a_sampling_for_each_value_and_a_control_its_like_point() -> None:
    found = plan(ddim={**DDIM, "grid": ETA}, scaled={**SCALED, "grid": ETA}).experiment.sampling
    assert {name: (one.sampler["eta"], one.control) for name, one in found.items()} == {
        "ddim-eta0": (0.0, None),
        "ddim-eta0.2": (0.2, None),
        "ddim-eta1": (1.0, None),
        "scaled-eta0": (0.0, "ddim-eta0"),
        "scaled-eta0.2": (0.2, "ddim-eta0.2"),
        "scaled-eta1": (1.0, "ddim-eta1"),
    }


def test_a_number_of_a_correction_is_swept_and_the_control_has_no_such_axis() -> None:
    b = {"b": {"key": "corrections.0.b", "values": [1.01, 1.02]}}
    found = plan(ddim={**DDIM, "grid": ETA}, scaled={**SCALED, "grid": {**ETA, **b}}).experiment.sampling
    assert found["scaled-eta0.2-b1.02"].corrections[0]["b"] == 1.02
    assert found["scaled-eta0.2-b1.02"].control == "ddim-eta0.2"


def test_grids_and_controls_are_no_part_of_what_is_drawn() -> None:
    """Else a sample set would be drawn again because another was compared with it."""
    point = plan(ddim={**DDIM, "grid": ETA}, other=SCALED | {"control": "ddim-eta0"}).experiment.sampling
    alone = plan(ddim={**DDIM, "sampler": {"name": "ddim", "eta": 0.2}}).experiment.sampling["ddim"]
    assert point["ddim-eta0.2"].drawn() == alone.drawn()
    assert not {"control", "grid", "published", "methods"} & alone.drawn().keys()


@pytest.mark.parametrize(
    ("samplings", "sentence"),
    [
        ({"ddim": {**DDIM, "grid": {"x": {"key": "sampler.etta", "values": [0]}}}}, "etta"),
        ({"ddim": {**DDIM, "grid": {"x": {"key": "corrections.0.b", "values": [1]}}}}, "no 'corrections.0.b' to set"),
        ({"ddim": {**DDIM, "grid": {"x": {"key": "sampler.eta", "values": [2]}}}}, "eta"),
        ({"ddim": {**DDIM, "grid": ETA}, "scaled": SCALED}, "is a grid over eta, which scaled is not"),
        ({"scaled": SCALED}, "no control 'ddim'"),
        ({"ddim": {**DDIM, "nfe": [5]}, "scaled": SCALED}, "has none of its nfe"),
        ({"ddim": {**DDIM, "grid": ETA}, "ddim-eta1": DDIM}, "is the name of another sampling"),
        ({"ddim": {**DDIM, "published": {"ddpm/paper": "nobody"}}}, "no published row 'nobody'"),
        ({"ddim": {**DDIM, "published": {"ddpm/papr": "ning2024/ddim"}}}, "did you mean 'ddpm/paper'"),
    ],
)
def test_refusals(samplings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence.replace(".", r"\.")):
        plan(**samplings)


def test_points_of_grids_have_no_figures_of_their_own_unless_there_is_nothing_else() -> None:
    both = plan(ddim={**DDIM, "grid": ETA}, scaled={**SCALED, "control": "ddim-eta0"}).summary()
    assert pictured(both, "ddpm") == ["scaled"]
    alone = plan(ddim={**DDIM, "grid": ETA}).summary()
    assert pictured(alone, "ddpm") == ["ddim-eta0", "ddim-eta0.2", "ddim-eta1"]
