"""Verdicts on made-up curves: what grows, what is a line, and what is neither."""

import numpy as np
import pytest

from pipeline_lib.errors import trends
from pipeline_lib.errors.jackknife import Estimate
from pipeline_lib.errors.verdicts import tolerance, verdict

TIMES, TOLERANCE = 20, 3e-3
PROGRESS = np.linspace(0, 1, TIMES)


def curve(values: np.ndarray, noise: float, n: int = 200) -> list[Estimate]:
    """Estimates whose errors are independent over t, with standard error `noise`."""
    rng = np.random.default_rng(4)
    found = []
    for value in values:
        influence = rng.standard_normal(n)
        influence *= noise * (n / 2) ** 0.5 / influence.std()
        found.append(Estimate(float(value), influence, influence))
    return found


def judged(values: np.ndarray, noise: float = TOLERANCE / 6) -> str:
    points = curve(values, noise)
    allowed = tolerance(values, TOLERANCE)
    return verdict(trends.rows(points, PROGRESS, 0.95, seed=0), allowed)


def wiggle(size: float) -> np.ndarray:
    return size * np.random.default_rng(1).standard_normal(TIMES)


def test_exponential_growth_grows():
    assert judged(1e-3 * np.exp(3 * PROGRESS)) == "grows"


def test_growth_from_an_error_that_is_not_above_zero_grows_without_a_ratio():
    values = np.concatenate((np.full(5, -1e-4), np.linspace(1e-3, 2e-2, 15)))
    rows = {row["trend"]: row for row in trends.rows(curve(values, 1e-4), PROGRESS, 0.95, seed=0)}
    assert np.isnan(rows["growth-ratio"]["low"])
    assert judged(values, 1e-4) == "grows"


def test_the_reverse_of_growth_falls():
    assert judged(1e-2 * np.exp(-3 * PROGRESS)) == "falls"


def test_noise_around_nothing_is_a_horizontal_line():
    assert judged(wiggle(TOLERANCE / 6)) == "horizontal"


def test_noise_around_an_error_far_above_the_null_is_a_horizontal_line():
    assert judged(0.05 + wiggle(2e-3), noise=2e-3) == "horizontal"


def test_too_much_noise_to_exclude_growth_is_undecided():
    """The same curve as a line, measured ten times worse: nothing was seen, and nothing would have been."""
    assert judged(wiggle(TOLERANCE / 6), noise=2 * TOLERANCE) == "undecided"


def test_a_bump_is_no_line():
    assert judged(bump(0.02)) == "undecided"


def test_small_but_certain_growth_is_not_called_a_line():
    assert judged(0.05 + 0.005 * PROGRESS, noise=1e-5) == "grows"


def test_a_rise_of_ranks_whose_ratio_may_be_one_is_undecided():
    """Many small steps up, and an early quarter as high as the last."""
    values = np.concatenate((np.full(3, 0.0), [0.05, 0.05], np.linspace(0.001, 0.02, 15)))
    assert judged(values, noise=1e-4) == "undecided"


@pytest.mark.parametrize(
    ("values", "least", "allowed"), [([0.0, 0.0], 6.0, 6.0), ([30.0, 10.0], 6.0, 10.0), ([-1.0, -3.0], 0.1, 0.1)]
)
def test_tolerance(values, least, allowed):
    assert tolerance(values, least) == allowed


def bump(size: float) -> np.ndarray:
    return size * np.exp(-(((PROGRESS - 0.5) / 0.2) ** 2))


@pytest.mark.parametrize("noise", [TOLERANCE / 10, TOLERANCE / 30, TOLERANCE / 1000])
def test_a_verdict_does_not_depend_on_the_number_of_chains_once_they_suffice(noise):
    assert judged(bump(TOLERANCE / 2), noise) == "horizontal"
    assert judged(bump(3 * TOLERANCE), noise) == "undecided"


def test_fluctuation_is_between_the_means_of_quarters():
    assert trends.fluctuation(np.array([0.0, 2.0, 5.0, 5.0, 1.0, 1.0, 3.0, 3.0]), PROGRESS) == 4.0
    assert trends.fluctuation(np.array([[1.0, 4.0], [4.0, 4.0]]), PROGRESS).tolist() == [3.0, 0.0]


def test_the_interval_of_the_fluctuation_covers_a_planted_step_from_above():
    """Redrawing adds noise to noise, which only widens: the bound is cautious."""
    rng, planted = np.random.default_rng(0), 4e-3
    values = np.repeat([0.0, 0.0, planted, planted], 5)
    held = []
    for i in range(40):
        noisy = curve(values + 1e-3 * rng.standard_normal(TIMES), 1e-3)
        row = next(r for r in trends.rows(noisy, PROGRESS, 0.95, seed=i) if r["trend"] == "fluctuation")
        held.append(row["high"] >= planted)
    assert np.mean(held) >= 0.95
