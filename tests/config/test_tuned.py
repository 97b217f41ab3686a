"""Samplings whose constants are tuned or taken from elsewhere: what they depend on, and what is refused."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL, plan, stages

DDIM = {"sampler": "ddim", "nfe": [10, 20], "images": 100}
UNIFORM = {"name": "uniform-scaling", "images": 50}
SHIFT = {"name": "time-shift", "windows": [8], "cutoffs": [9]}
SHIFT_8 = {"name": "time-shift", "window": 8, "cutoff": 9}
HOME = "results/tiny/digits/ddpm/paper/s0"


def tuned(**samplings: Any) -> dict[str, Any]:
    """An experiment with the sampling `tuned`, others beside it, and a second dataset."""
    values = copy.deepcopy(MINIMAL)
    values["sampling"] |= {"tuned": {**DDIM, "tuning": UNIFORM}, **samplings}
    values["datasets"]["more"] = {"recipe": "digits"}
    return values


def moved(**transfer: Any) -> dict[str, Any]:
    return {**DDIM, "transfer": {"sampling": "tuned", **transfer}}


def inputs(values: dict[str, Any], sampling: str) -> list[str]:
    cell = {"dataset": "digits", "method": "ddpm", "variant": "paper", "seed": "0", "sampling": sampling}
    return plan(values).tuned(SimpleNamespace(**cell))


def test_a_tuning_is_a_job_for_each_run_that_samples_and_errors_wait_for() -> None:
    one = plan(tuned())
    home = "digits/ddpm/paper/s0"
    assert [name for name, config in one.stage_configs() if config["stage"] == "tune"] == [
        f"{home}/tuned/tune",
        f"more/{home.removeprefix('digits/')}/tuned/tune",
    ]
    assert one.trials[0] == f"{HOME}/tuned/tune/trials.parquet"
    assert inputs(tuned(), "tuned") == [f"{HOME}/tuned/tune/manifest.json"]
    assert inputs(tuned(), "ancestral") == []
    assert {"tuning", "tuned"} < set(one.tables)
    assert "tuning" in one.figures
    assert "tuning" not in plan().tables


def test_a_transfer_waits_for_the_tuning_that_it_names() -> None:
    assert inputs(tuned(same=moved()), "same") == [f"{HOME}/tuned/tune/manifest.json"]
    there = inputs(tuned(there=moved(dataset="more", nfe=20)), "there")
    assert there == ["results/tiny/more/ddpm/paper/s0/tuned/tune/manifest.json"]


def test_samplings_without_tuned_constants_are_what_they_were() -> None:
    """Their configurations, and so their identities in the store, know nothing of tunings."""
    before, after = stages(MINIMAL), stages(tuned())
    assert {k: after[k] for k in before} == before
    sample = before["digits/ddpm/paper/s0/ancestral/sample"]["config"]
    assert not {"tuning", "transfer"} & set(sample)


@pytest.mark.parametrize(
    ("samplings", "sentence"),
    [
        ({"one": {**DDIM, "tuning": "uniform"}}, "did you mean 'uniform-scaling'"),
        ({"one": {**DDIM, "tuning": {"name": "uniform-scaling", "lowest": 0.9}}}, "unknown key 'tuning.lowest'"),
        ({"one": {**DDIM, "tuning": UNIFORM, "transfer": {"sampling": "tuned"}}}, "either tuning or transfer"),
        ({"one": {**DDIM, "tuning": UNIFORM, "corrections": [{"name": "epsilon-scaling"}]}}, "remove it there"),
        ({"one": {**DDIM, "transfer": {"sampling": "tunde"}}}, "no sampling 'tunde'; did you mean 'tuned'"),
        ({"one": {**DDIM, "transfer": {"sampling": "ancestral"}}}, "ancestral tunes nothing"),
        ({"one": moved(), "two": {**DDIM, "transfer": {"sampling": "one"}}}, "one has its constants from another"),
        ({"one": moved(nfe=50)}, r"not tuned at 50 calls, only at \[10, 20\]"),
        ({"one": {**moved(), "nfe": [50]}}, "not tuned at 50 calls"),
        ({"one": moved(dataset="mor")}, "no dataset 'mor'; did you mean 'more'"),
        ({"one": {**DDIM, "tuning": {"name": "time-shift", "cutoffs": [100]}}}, "a cutoff of 100 switches"),
        ({"one": {**DDIM, "tuning": {"name": "time-shift", "windows": [100], "cutoffs": [9]}}}, "wider than the path"),
        ({"one": {**DDIM, "sampler": "analytic-dpm", "tuning": SHIFT}}, "analytic-dpm knows the t of the grid alone"),
        (
            {"one": {**DDIM, "tuning": SHIFT, "corrections": [{"name": "variance-downscaling"}]}},
            "variance-downscaling knows the t of the grid alone",
        ),
        (
            {
                "one": {**DDIM, "tuning": SHIFT},
                "two": {**DDIM, "sampler": "analytic-dpm", "transfer": {"sampling": "one"}},
            },
            r"sampling\.two: analytic-dpm knows the t of the grid alone",
        ),
        *(
            (
                {"one": {**DDIM, "tuning": {"name": way}, "corrections": [{**SHIFT_8, "reading": "released"}]}},
                f"{way} knows the t of the grid alone, and time-shift leaves them",
            )
            for way in ("simulated", "norm-ratio")
        ),
        ({"one": {**DDIM, "tuning": {"name": "linear-scaling", "k_high": 0.2}}}, "lower k_high"),
        ({"one": {**DDIM, "tuning": {**UNIFORM, "strides": [0.001, 0.005]}}}, "each smaller than the one before"),
        ({"one": {**DDIM, "tuning": {**UNIFORM, "low": 1.01}}}, "less than or equal to 1"),
    ],
)
def test_what_cannot_work_is_refused(samplings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        plan(tuned(**samplings))


def test_factors_serve_as_many_steps_only() -> None:
    steps = {**DDIM, "tuning": {"name": "norm-ratio"}}
    plan(tuned(steps=steps, one={**DDIM, "transfer": {"sampling": "steps"}}))
    with pytest.raises(BadConfig, match="a factor for each of 20 steps, which do not fit 10"):
        plan(tuned(steps=steps, one={**DDIM, "nfe": [10], "transfer": {"sampling": "steps", "nfe": 20}}))


def test_a_score_is_sought_beside_a_written_time_shift_and_factors_are_taken_there() -> None:
    shifted = {**DDIM, "corrections": [SHIFT_8]}
    plan(tuned(steps={**DDIM, "tuning": "simulated"}, one={**shifted, "transfer": {"sampling": "steps"}}))
    plan(tuned(one={**shifted, "tuning": UNIFORM}))


def test_a_run_that_was_not_tuned_is_named() -> None:
    values = tuned(one=moved())
    values["methods"]["other"] = {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}}
    values["sampling"]["tuned"]["methods"] = ["ddpm"]
    with pytest.raises(BadConfig, match="there is no run digits/other/paper/s0/tuned"):
        plan(values)
    values["sampling"]["one"]["methods"] = ["ddpm"]
    plan(values)
