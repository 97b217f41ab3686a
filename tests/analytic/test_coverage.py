"""The coverage stage: it finds good intervals good and bad ones bad, and its closed forms are what sampling gives."""

import numpy as np
import pytest
import torch

from pipeline_lib.analytic import coverage, exact
from pipeline_lib.analytic.coverage import NEAR, Repetitions
from pipeline_lib.analytic.problems import Study
from pipeline_lib.config.models import Coverage
from pipeline_lib.errors.exposure import Measured
from tests.analytic.test_problems import problem

OPTIONS = Coverage(
    repeats=60,
    chains=60,
    level_repeats=400,
    level_chains=40,
    times=2,
    permutations=99,
    power_chains=100,
    power_repeats=20,
    power_bias=[0.01, 0.5],
)
LARGE = {"one": {"error": {"bias": 0.5}}}


def trial(**values: object) -> Repetitions:
    return Repetitions(Study(problem(**values), 0), OPTIONS)


def test_intervals_cover_far_from_the_null_and_are_flagged_near_it() -> None:
    far = problem(settings=LARGE)
    rows = list(Repetitions(Study(far, 0), OPTIONS).intervals(far.settings["one"]))
    assert {r["quantity"] for r in rows} == {"mmd2", "spread-gap", "eps-norm"}
    assert [r["verdict"] for r in rows if r["quantity"] != "mmd2"] == ["covers"] * 4
    assert all(r["verdict"] == "covers" for r in rows if r["quantity"] == "mmd2" and r["exact"] > 0.05)
    none = problem()
    near = list(Repetitions(Study(none, 0), OPTIONS).intervals(none.settings["one"]))
    assert {r["verdict"] for r in near if r["quantity"] == "mmd2"} == {NEAR}


def test_an_interval_that_misses_is_called_too_narrow() -> None:
    """The same estimates against a value that is two of their standard deviations off, and with other stated errors."""
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 0.1, 60)
    one = trial()
    assert one._share("eps-norm", 1, 1.0, [Measured(v, 0.1) for v in values])["verdict"] == "covers"
    assert one._share("eps-norm", 1, 1.2, [Measured(v, 0.1) for v in values])["verdict"] == "too narrow"
    assert one._share("eps-norm", 1, 1.0, [Measured(v, 0.03) for v in values])["verdict"] == "too narrow"
    assert one._share("eps-norm", 1, 1.0, [Measured(v, 1.0) for v in values])["verdict"] == "covers"


def test_the_permutation_test_keeps_its_level() -> None:
    rows = list(trial().null())
    assert [r["verdict"] for r in rows] == ["keeps its level"] * 2
    assert all(r["level"] == pytest.approx(0.05) for r in rows)


def test_large_errors_are_detected_and_small_ones_missed() -> None:
    *planted, smallest = trial().power()
    assert [r["verdict"] for r in planted] == ["missed", "detected"]
    assert planted[0]["exact"] < smallest["exact"] < planted[1]["exact"]


def test_interpolation_of_the_smallest_detected_error() -> None:
    assert coverage.detectable([0.01, 0.04], [0.6, 1.0]) == pytest.approx(0.15**2)
    assert np.isnan(coverage.detectable([0.01, 0.04], [0.2, 0.5]))
    assert np.isnan(coverage.detectable([0.01], [0.9]))
    assert coverage.detectable([0.01, 0.04, 0.09], [0.9, 0.6, 1.0]) == pytest.approx(0.25**2)  # the last that is missed


def test_a_bound_outside_the_planted_errors_says_where() -> None:
    assert coverage._bound([0.01, 0.04], [0.6, 1.0]) == "0.023"
    assert coverage._bound([0.01, 0.04], [0.85, 1.0]) == "below 0.01"
    assert coverage._bound([0.01, 0.04], [0.2, 0.5]) == "above 0.04"


def test_bootstrapped_errors_equal_simulated_rollouts() -> None:
    """The closed form against chains that start from the true x_s, and the whole chain against D_t itself."""
    one = problem(settings={"one": {"variance": "fixed-large", "error": {"bias": 0.3}}})
    study, setting = Study(one, 0), one.settings["one"]
    at_end = [r for r in Repetitions(study, OPTIONS).bootstrapped(setting) if r["step"] == 20]
    shown = {r["size"]: r["mean"] for r in at_end}
    x0, eps = study.forward(2000)
    y0, _ = study.forward(2000, 2)
    values = []
    for j in (1, 2, 3):
        grid = study.grid.below(20 - j)
        x = study.simulate(setting, grid.a[0] * x0 + grid.s[0] * eps, torch.arange(2000), grid)
        values.append(coverage._mmd(x, y0, coverage.length_scale(exact.marginal(study.data, 1.0, 0.0))))
    mean = float(np.mean([v.value for v in values]))
    assert shown[3.0] == pytest.approx(mean, abs=4 * max(v.se for v in values))
    assert at_end[0]["exact"] == pytest.approx(exact.mmd2(*_ends(study, setting)))
    assert list(shown.values()) == sorted(shown.values())  # a longer rollout shows more of this error
    assert shown[10.0] < at_end[0]["exact"]


def _ends(study: Study, setting: object) -> tuple[exact.Normal, exact.Normal, float]:
    last = study.links(setting)[-1]
    return last.p_u, last.q_u, coverage.length_scale(last.q_u)


@pytest.mark.parametrize(("rejected", "verdict"), [(0.05, "keeps its level"), (0.2, "often"), (0.0, "rarely")])
def test_a_test_that_misses_its_level_on_either_side_is_seen(
    rejected: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([i < rejected * 400 for i in range(400)] * 2)
    monkeypatch.setattr(coverage, "_rejects", lambda *_: (next(answers), 0.0))
    assert all(verdict in row["verdict"] for row in trial().null())


def test_the_oracle_chain_adds_noise_to_the_end() -> None:
    """Without it x_0 would have too little variance: 1 % of the data's, in 20 steps."""
    study, index = Study(problem(nfe=3), 0), torch.arange(20_000)
    x = study.true_chain(
        study.grid.a[0] * study.forward(20_000)[0] + study.grid.s[0] * study.forward(20_000)[1], index, 3
    )
    covariance = study.data.moments()[1]
    spread = 4 * float(covariance.max()) * (2 / len(x)) ** 0.5
    assert torch.allclose(torch.cov(x.flatten(1).double().T), covariance, atol=spread)
