"""Trends of curves whose growth is known, and intervals that know how the points of a curve correlate."""

import numpy as np
import pytest

from pipeline_lib.errors import trends
from pipeline_lib.errors.jackknife import Estimate

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
    assert np.isnan([rows["exponential-rate"][k] for k in ("value", "low", "high")]).all()


@pytest.mark.parametrize(("below", "rate"), [(5, 2.5), (6, np.nan)])
def test_a_rate_needs_three_quarters_of_the_points(below, rate):
    values = 1e-3 * np.exp(2.5 * PROGRESS)
    values[:below] = -1e-5
    assert found(values)["exponential-rate"]["value"] == pytest.approx(rate, nan_ok=True)
    assert np.isnan(found(np.array([1.0, 2.0]))["exponential-rate"]["value"])


def test_the_interval_of_a_rate_holds_it_where_noise_makes_points_negative():
    """Noise of 1 around errors that begin at 0.3 to 3: some curves have no rate, some redrawn ones have none."""
    rng, n, rows = np.random.default_rng(0), 200, []
    for i in range(90):
        influence = rng.standard_normal((21, n)) * (n / 2) ** 0.5
        influence -= influence.mean(1, keepdims=True)
        values = (0.3, 1.0, 3.0)[i % 3] * np.exp(1.5 * PROGRESS) + rng.standard_normal(21)
        points = [Estimate(float(v), row, row) for v, row in zip(values, influence, strict=True)]
        rows += [r for r in trends.rows(points, PROGRESS, 0.95, seed=i) if r["trend"] == "exponential-rate"]
    defined = [r for r in rows if np.isfinite(r["value"])]
    assert 50 < len(defined) < 90
    assert np.mean([r["low"] <= 1.5 <= r["high"] for r in defined]) >= 0.95
    assert np.mean([r["low"] <= r["value"] <= r["high"] for r in defined]) >= 0.95
    assert any(np.isinf(r["low"]) and np.isinf(r["high"]) for r in defined)  # no redrawn rate may be any rate


def test_an_uncertain_start_leaves_the_ratio_unbounded_above():
    row = found(np.linspace(1e-4, 1e-2, 21), influence=0.2)["growth-ratio"]
    assert np.isinf(row["high"])
    assert row["low"] < row["value"]


def test_intervals_leave_half_of_the_rest_at_each_end():
    assert trends.interval(np.arange(1001.0)[::-1], 0.75) == (125, 875)
    ratios = np.array([*np.arange(100.0), np.nan])
    assert trends.interval(ratios, 0.5, (np.inf, np.inf)) == (25, 75)
    assert trends.interval(ratios, 1.0, (np.inf, np.inf)) == (0, np.inf)
    assert trends.interval(ratios, 1.0) == (-np.inf, np.inf)


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
