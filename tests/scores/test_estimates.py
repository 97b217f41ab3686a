"""Estimates between others, and shares."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from pipeline_lib.scores.estimates import Estimate, around, between, joined, share

RANDOM = np.random.default_rng(0)
PLACES = [1.0, 3.0, 7.0]
FOUND = [Estimate(value, RANDOM.normal(size=20)) for value in (9.0, 5.0, 4.0)]


@pytest.mark.parametrize(("hits", "count"), [(0, 100), (3, 100), (100, 100), (1, 2)])
def test_shares_have_the_interval_of_wilson(hits: int, count: int) -> None:
    """Its ends p solve (x - p)^2 = z^2 p (1 - p) / n: one at 0 of 100 is not known to be 0."""
    found = share(np.arange(count) < hits)
    z, x = NormalDist().inv_cdf(0.975), hits / count
    ends = sorted(np.roots([1 + z**2 / count, -2 * x - z**2 / count, x**2]).real)
    assert found.interval() == pytest.approx(ends, abs=1e-9)
    assert stats.binomtest(hits, count).proportion_ci(method="wilson") == pytest.approx(found.interval(), abs=1e-9)
    halves = [share(part) for part in np.split(np.arange(count) < hits, 2)]
    assert joined(halves).interval() == pytest.approx(ends, abs=1e-9)


def test_differences_of_shares_and_other_scores_have_normal_intervals() -> None:
    few, many = share(np.arange(100) < 3), share(np.arange(100) < 50)
    for one in (few - many, joined(FOUND[:2])):
        assert one.interval() == pytest.approx((one.value - 1.959964 * one.se, one.value + 1.959964 * one.se))


def test_it_lies_on_the_line_between_its_neighbours() -> None:
    """A quarter of the way from 3 to 7, value and influence alike: with perfectly shared samples the error is shared,
    too."""
    found = between(PLACES, FOUND, 4.0)
    assert found is not None
    assert found.value == pytest.approx(0.75 * 5 + 0.25 * 4)
    np.testing.assert_allclose(found.influence, 0.75 * FOUND[1].influence + 0.25 * FOUND[2].influence)


@pytest.mark.parametrize(("place", "index"), [(1.0, 0), (3.0, 1), (7.0, 2)])
def test_at_a_place_it_is_what_was_found_there(place: float, index: int) -> None:
    found = between(PLACES, FOUND, place)
    assert found is not None
    assert found.value == pytest.approx(FOUND[index].value)
    np.testing.assert_allclose(found.influence, FOUND[index].influence, atol=1e-15)


@pytest.mark.parametrize("place", [0.9, 7.1])
def test_nothing_is_extrapolated(place: float) -> None:
    assert between(PLACES, FOUND, place) is None


def test_what_lies_around() -> None:
    found = [around(PLACES, place) for place in (0.9, 1.0, 2.9, 3.0, 6.0, 7.0, 7.1, float("nan"))]
    assert found == [None, (0, 0), (0, 1), (1, 1), (1, 2), (2, 2), None, None]


def test_a_single_place_has_no_neighbours() -> None:
    assert between([2.0], FOUND[:1], 2.0) is FOUND[0]
    assert between([], [], 2.0) is None


def test_other_samples_do_not_pair() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        between([1.0, 2.0], [FOUND[0], Estimate(1.0, np.zeros(3))], 1.5)
