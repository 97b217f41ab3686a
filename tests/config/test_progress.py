"""Averages that samplings ask for, and snapshots that are scored: what is planned, and what is refused."""

from typing import Any

import pytest

from pipeline_lib.config import compared
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL, changed, plan

KEPT = {"training": {"snapshots": [0.5], "averages": {"short": {"decay": 0.5}}}}
DDIM = {"sampler": "ddim", "nfe": [10], "images": 100}


def kept(**more: Any) -> dict[str, Any]:
    """DDPM with a snapshot and an average, and a control-less twin without them."""
    values = changed("methods/ddpm/run", KEPT)
    values["methods"]["plain"] = {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}}
    return {**values, **more}


def progress(values: dict[str, Any]) -> dict[str, Any]:
    found = plan(values)
    configs = dict(found.stage_configs())
    assert [f"{place}/progress" for place in found.progressed] == [k for k in configs if k.endswith("/progress")]
    return {place: configs[f"{place}/progress"]["config"] for place in found.progressed}


def test_snapshots_are_scored_in_the_first_sampling_at_its_most_calls() -> None:
    values = kept()
    values["sampling"]["ddim"] = DDIM
    found = progress(values)
    assert list(found) == ["digits/ddpm/paper/s0/ancestral"]
    (config,) = found.values()
    assert (config["sampling"]["nfe"], config["images"]) == ([100], None)
    assert not {"images", "weights"} & config["sampling"].keys()


def test_a_sampling_that_is_not_scored_is_passed_over() -> None:
    values = kept()
    values["sampling"] = {"whole": {**DDIM, "images": 8, "scored": False}, **values["sampling"]}
    assert list(progress(values)) == ["digits/ddpm/paper/s0/ancestral"]


def test_samplings_calls_and_images_can_be_chosen() -> None:
    values = kept(progress={"samplings": ["ddim"], "nfe": 10, "images": 50})
    values["sampling"]["ddim"] = DDIM
    found = progress(values)
    assert list(found) == ["digits/ddpm/paper/s0/ddim"]
    (config,) = found.values()
    assert (config["sampling"]["nfe"], config["images"]) == ([10], 50)


def test_without_snapshots_there_is_nothing() -> None:
    found = plan()
    assert found.progressed == []
    assert not {"progress", "equal_costs"} & {*found.tables, *found.figures}
    assert {"progress", "equal_costs"} <= {*plan(kept()).tables}
    assert "progress" in plan(kept()).figures


def test_what_is_kept_beside_it_makes_no_difference_to_a_control() -> None:
    values = kept(comparisons={"table1": {"title": "Both", "rows": ["ddpm/paper"]}})
    values["methods"]["ddpm"]["variants"]["paper"]["control"] = "plain/paper"
    assert plan(values).differences == []
    assert compared.costs(plan(values).experiment, plan(values).instances)[0]["apart"] == []


def test_a_grid_over_averages_is_an_axis_of_the_sampling() -> None:
    values = kept()
    values["sampling"] = {
        "main": {"sampler": "ancestral", "nfe": [10], "images": 100},
        "mean": {**DDIM, "methods": ["ddpm"], "grid": {"of": {"key": "weights", "values": ["ema", "short"]}}},
    }
    found = plan(values)
    configs = dict(found.stage_configs())
    assert list(found.experiment.sampling) == ["main", "mean-ofema", "mean-ofshort"]
    assert "weights" not in configs["digits/ddpm/paper/s0/mean-ofema/sample"]["config"]
    for stage in ("sample", "errors"):
        config = configs[f"digits/ddpm/paper/s0/mean-ofshort/{stage}"]["config"]
        assert config.get("sampling", config)["weights"] == "short"


@pytest.mark.parametrize("given", [{"nfe": 100}, {"samplings": ["ancestral"]}])
def test_options_of_a_progress_that_no_training_has_are_refused(given: dict[str, Any]) -> None:
    assert plan({**MINIMAL, "progress": {}}).progressed == []
    with pytest.raises(BadConfig, match="keeps"):
        plan({**MINIMAL, "progress": given})


def test_a_sampling_without_snapshots_is_no_place_for_progress() -> None:
    values = kept(progress={"samplings": ["ancestral", "rest"]})
    values["sampling"]["rest"] = {**DDIM, "methods": ["plain"]}
    with pytest.raises(BadConfig, match="rest draws from no training that keeps"):
        plan(values)


@pytest.mark.parametrize(
    ("sampling", "experiment", "sentence"),
    [
        ({"weights": "shirt"}, {}, "ddpm/paper keeps no average 'shirt' (training.averages); did you mean 'short'?"),
        ({"weights": "short"}, {}, "plain/paper keeps no average 'short'"),
        ({"weights": "short", "methods": ["ddpm"]}, {}, "progress: ancestral samples the average 'short'"),
        ({}, {"progress": {"samplings": ["dim"]}}, "no sampling 'dim'"),
        ({}, {"progress": {"nfe": 50}}, "does not sample 50 calls, only [20, 100]; name one of these"),
        ({}, {"progress": {"images": 200}}, "than the 100 of ancestral; name fewer, or null for as many"),
        ({"sampler": {"name": "analytic-dpm"}}, {}, "constants that are found for the last weights"),
        ({"scored": False}, {"progress": {"samplings": ["ancestral"]}}, "ancestral is not scored"),
        ({"tuning": {"name": "norm-ratio"}}, {}, "constants that are found for the last weights"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused(sampling: dict[str, Any], experiment: dict[str, Any], sentence: str) -> None:
    values = kept(**experiment)
    values["sampling"]["ancestral"] |= sampling
    if "methods" in sampling:
        values["sampling"]["rest"] = {**DDIM, "methods": ["plain"]}
    with pytest.raises(BadConfig) as refused:
        plan(values)
    assert sentence in str(refused.value)
