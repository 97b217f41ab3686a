"""Trends of curves whose growth is known, and intervals that know how the points of a curve correlate."""

import numpy as np
import pytest

from pipeline_lib.errors import trends
from pipeline_lib.errors.uncertainty import Estimate

PROGRESS = np.linspace(0, 1, 21)


def curve(values: np.ndarray, influence: float = 0.0, n: int = 400) -> list[Estimate]:
    """Points that share one fluctuation of each sample over all t."""
    one = np.random.default_rng(123).standard_normal(n)
    one -= one.mean()
    return [Estimate(float(v), influence * one, influence * one) for v in values]


def found(values: np.ndarray, influence: float = 0.0) -> dict[str, dict[str, float]]:
    progress = np.linspace(0, 1, len(values))
    return {row["trend"]: row for row in trends.rows(curve(values, influence), progress, 0.9, seed=0)}


def test_an_exponential_curve_has_its_rate_and_only_grows():
    rows = found(1e-3 * np.exp(2.5 * PROGRESS))
    assert rows["exponential-rate"]["value"] == pytest.approx(2.5)
    assert rows["rank-correlation"]["value"] == pytest.approx(1)
    assert rows["growth-ratio"]["value"] == pytest.approx(np.exp(2.5 * 0.8), rel=1e-6)


def test_a_falling_curve_has_the_opposite_signs():
    rows = found(1e-3 * np.exp(-1.5 * PROGRESS))
    assert rows["exponential-rate"]["value"] == pytest.approx(-1.5)
    assert rows["rank-correlation"]["value"] == pytest.approx(-1)
    assert rows["growth-ratio"]["value"] < 1


def test_no_growth_is_claimed_over_nothing():
    rows = found(np.concatenate((np.full(8, -1e-5), np.full(13, 1e-3))))
    assert np.isnan([rows["growth-ratio"][k] for k in ("value", "low", "high")]).all()
    assert rows["exponential-rate"]["value"] == pytest.approx(0)  # the positive part is flat
    assert np.isnan(found(np.full(21, -1e-5))["exponential-rate"]["value"])


def test_an_uncertain_start_leaves_the_ratio_unbounded_above():
    row = found(np.linspace(1e-4, 1e-2, 21), influence=0.2)["growth-ratio"]
    assert np.isinf(row["high"])
    assert row["low"] < row["value"]


def test_intervals_leave_half_of_the_rest_at_each_end():
    assert trends.interval(np.arange(1001.0)[::-1], 0.75) == (125, 875)
    assert trends.interval(np.array([*np.arange(100.0), np.nan]), 0.5) == (25, 75)
    assert trends.interval(np.array([*np.arange(100.0), np.nan]), 1.0) == (0, np.inf)


def test_redrawn_curves_have_the_covariance_of_the_estimates():
    points = curve(np.array([1.0, 2.0, 3.0]), influence=0.5)
    opposite = [*points[:2], Estimate(3.0, -points[0].chains, -points[0].forward)]
    draws = trends.bootstrap(opposite, seed=0, draws=4000)
    assert np.allclose(draws.mean(0), [1, 2, 3], atol=4 * points[0].se / 4000**0.5)
    assert draws.std(0) == pytest.approx([p.se for p in opposite], rel=0.05)
    assert np.corrcoef(draws.T) == pytest.approx(np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]]))


def test_a_fluctuation_common_to_all_t_does_not_blur_the_order():
    """The same size of error, independent at every t, would."""
    row = found(np.linspace(0.5, 0.6, 21), influence=1.0)["rank-correlation"]
    assert row["low"] == pytest.approx(1)
