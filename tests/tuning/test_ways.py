"""Searches on given scores: what is tried, what is chosen, and what an interrupted search keeps."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline_lib.config.models import Diffusion
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.samplers._stage import draw
from pipeline_lib.tuning import linear_scaling, norm_ratio, per_step, simulated, time_shift, uniform_scaling
from pipeline_lib.tuning._bench import FIRST, Bench, Trials, complete
from pipeline_lib.tuning._ends import at_end
from tests.tuning.bench import HEUN, SIDE, bench, exact


class StopsAfter(Trials):
    """Trials that are interrupted when there are so many."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path, lambda: "time is up" if len(self.rows) >= most else None)


def marked(at: Bench, chosen: dict[str, Any]) -> pd.DataFrame:
    """The trials as the stage records them."""
    wanted = json.dumps(complete(chosen))
    return pd.DataFrame([{**row, "chosen": "chosen" if row["options"] == wanted else ""} for row in at.trials.rows])


def scored(folder: Path, score: Callable[[dict[str, Any]], float], steps: int = 3) -> Bench:
    """A bench whose scores are a function of the constants, and no chain is drawn."""
    at = bench(exact(), steps, folder, images=2)
    at.chains = lambda correction: correction  # type: ignore[method-assign, assignment, return-value]
    at.distance = lambda correction: score(correction or {})  # type: ignore[assignment, arg-type, return-value]
    return at


@pytest.mark.parametrize(("best", "coarse"), [(0.987, 5 + 2), (1.052, 5 + 9), (1.002, 5)])
def test_the_range_grows_while_the_best_b_lies_at_its_end_and_b_may_be_below_1(
    best: float, coarse: int, tmp_path: Path
) -> None:
    """A stride at a time, one beyond the best: each trial is one of the search, and charged."""
    options = uniform_scaling.Options(low=0.99, high=1.01)
    at = scored(tmp_path, lambda one: abs(one["b"] - best))
    assert uniform_scaling.find(options, at)["b"] == best
    assert len([row for row in at.trials.rows if row["round"] == "b, stride 0.005"]) == coarse


@pytest.mark.parametrize(
    ("best", "reach", "found", "said"),
    [(0.9, 0.02, 0.98, "low"), (1.3, 0.05, 1.05, "high"), (1.3, 0, 1.03, "high"), (1.02, 0, 1.02, ""), (1, 0, 1, "")],
)
def test_a_best_b_at_the_end_of_the_reach_is_told_and_no_finer_stride_leaves_it(
    best: float, reach: float, found: float, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at = scored(tmp_path, lambda one: abs(one["b"] - best))
    chosen = uniform_scaling.find(uniform_scaling.Options(reach=reach), at)
    assert chosen["b"] == found
    assert all(f"widen tuning.{said} or" in one.getMessage() for one in caplog.records if "widen" in one.getMessage())
    assert at_end(marked(at, chosen)) == (["b"] if said else [])
    assert len(caplog.records) >= bool(said)


def test_a_slope_at_an_end_is_told_and_its_lambdas_stay_positive(tmp_path: Path) -> None:
    """0 is no end: it is the correction without a slope."""
    options = linear_scaling.Options(reach=0)
    for best, said in ((0.002, ["k"]), (0.0, []), (0.0004, [])):
        at = scored(tmp_path / str(best), lambda one, best=best: abs(one["b"] - 1.01) + 100 * abs(one["k"] - best), 1)
        assert at_end(marked(at, linear_scaling.find(options, at))) == said
    steep = linear_scaling.Options(k_high=0.1, low=0.99, reach=0.2)
    with pytest.raises(BadConfig, match=r"in 18 steps lambda falls 0\.85 below its mean, which may be 0\.8;"):
        linear_scaling.check(steep, Diffusion(), 18, "sampling.one")
    linear_scaling.check(steep, Diffusion(), 16, "sampling.one")


def test_a_shift_at_an_end_of_the_grid_is_told(tmp_path: Path) -> None:
    options = time_shift.Options(windows=[4], cutoffs=[10, 20, 30])
    for wanted, said in ((10, ["cutoff"]), (20, []), (99, ["cutoff"])):
        at = scored(tmp_path / str(wanted), lambda one, wanted=wanted: abs(one.get("cutoff", -99) - wanted))
        assert at_end(marked(at, time_shift.find(options, at))) == said


def test_the_coordinate_search_finds_each_factor(tmp_path: Path) -> None:
    wanted = [1.01, 0.995, 1.0]

    def score(one: dict[str, Any]) -> float:
        return sum((a - b) ** 2 for a, b in zip(one["factors"], wanted, strict=True))

    found = per_step.find(per_step.Options(rounds=5), at := scored(tmp_path, score))
    assert found["factors"] == wanted
    assert len({row["options"] for row in at.trials.rows}) == len(at.trials.rows)
    short = per_step.find(per_step.Options(rounds=1), scored(tmp_path / "short", score))
    assert short["factors"] == [1.005, 0.995, 1.0]


def test_the_time_shift_is_left_out_where_none_is_best(tmp_path: Path) -> None:
    options = time_shift.Options(windows=[2, 4], cutoffs=[10, 30])
    assert time_shift.find(options, scored(tmp_path, lambda one: float("window" in one))) is None
    found = time_shift.find(
        options, at := scored(tmp_path / "b", lambda one: -one.get("window", 0) - one.get("cutoff", 0))
    )
    assert (found["window"], found["cutoff"], found["reading"]) == (4, 30, "paper")
    assert len(at.trials.rows) == 5


def test_chains_of_trials_are_none_that_others_draw(tmp_path: Path) -> None:
    """All the numbers of a trial are those of chains from FIRST on; final samples and measured chains count from 0."""
    at = bench(exact(), 3, tmp_path, images=5)
    own = draw(at.denoiser, at.sampling, 3, torch.arange(FIRST, FIRST + 5), (1, SIDE, SIDE), 500)
    assert torch.equal(torch.cat(list(at.chains(None))), own)
    final = draw(at.denoiser, at.sampling, 3, torch.arange(5), (1, SIDE, SIDE), 500)
    assert (own - final).abs().flatten(1).amax(1).min() > 0.1
    assert FIRST > 10**9
    at.batch = 2
    assert torch.allclose(torch.cat(list(at.chains(None))), own)


@pytest.mark.parametrize(
    ("way", "options"),
    [
        (uniform_scaling, uniform_scaling.Options(images=20, low=0.99, high=1.01)),
        (norm_ratio, norm_ratio.Options(images=20)),
        (simulated, simulated.Options(images=20)),
    ],
)
def test_an_interrupted_search_goes_on_where_it_stopped(way: Any, options: Any, tmp_path: Path) -> None:
    """With the same trials as one that was not, of which none is made twice."""
    whole = bench(exact(1.02), 9, tmp_path / "whole", images=20, sampler=HEUN)
    wanted = way.find(options, whole)
    folder, drawn = tmp_path / "part", 0
    for more in (1, 2, 1000):
        at = bench(exact(1.02), 9, folder, images=20, sampler=HEUN)
        kept = len(at.trials.rows)
        at.trials = StopsAfter(folder / "trials.json", kept + more)
        with (
            contextlib.nullcontext()
            if more == 1000
            else pytest.raises(TryAgain, match=f"{kept + more} trials are kept")
        ):
            found = way.find(options, at)
        drawn += len(at.trials.rows) - kept
    assert found == wanted

    def said(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in ("seconds", "calls")} for row in rows]

    assert drawn == len(whole.trials.rows)
    assert said(at.trials.rows) == said(whole.trials.rows)


def test_network_calls_of_a_trial_are_counted(tmp_path: Path) -> None:
    at = bench(exact(), 9, tmp_path, images=7, sampler=HEUN)
    at.score({"name": "epsilon-scaling", "b": 1.01}, "one")
    at.score({"name": "epsilon-scaling", "b": 1.01}, "again")
    (row,) = json.loads((tmp_path / "trials.json").read_text())
    assert (row["calls"], row["images"], row["round"]) == (63, 7, "one")
