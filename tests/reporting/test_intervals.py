"""Paired t-intervals against scipy, and against a value by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline_lib.reporting.intervals import half_width, half_widths, paired
from pipeline_lib.reporting.summaries import rounded, with_interval, with_spread


def test_interval_is_that_of_the_paired_t_test() -> None:
    mine = pd.Series([3.1, 2.7, 3.4, 2.2], index=[0, 1, 2, 3])
    control = pd.Series([3.5, 3.6, 3.3, 3.0], index=[0, 1, 2, 3])
    found, test = paired(mine, control), stats.ttest_rel(mine, control)
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high, found.pairs) == (pytest.approx(low), pytest.approx(high), 4)
    assert found.mean == pytest.approx(-0.5)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_a_difference_that_cancels_is_zero() -> None:
    """0.6 - 0.5 and 0.5 - 0.6 add up to 2e-17 and the like, not to 0."""
    mine, control = pd.Series([0.6 + 1e-16, 0.5, 0.3]), pd.Series([0.5, 0.6, 0.3])
    assert (mine - control).mean() != 0
    assert paired(mine, control).mean == 0
    assert paired(mine + 1e-9, control).mean == pytest.approx(1e-9, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "two", "three"), [(0.114, "0.11", "0.114"), (130.4, "130", "130"), (99.6, "100", "99.6")]
)
def test_numbers_are_rounded_without_an_exponent(value: float, two: str, three: str) -> None:
    assert (rounded(value, 2), rounded(value, 3)) == (two, three)
    assert with_spread(948.3, value) == f"948.3 ± {two}"
    assert with_interval(1.0, -1910.2, value) == f"1 [-1910, {three}]"


def test_interval_of_two_pairs_by_hand() -> None:
    found = paired(pd.Series([1.0, 3.0]), pd.Series([0.0, 0.0]))
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(12.7062047)  # t_{0.975, 1} = 12.706, sd / sqrt(2) = 1


def test_the_order_of_seeds_changes_nothing() -> None:
    mine, control = pd.Series([1.0, 5.0, 2.0], index=[0, 1, 2]), pd.Series([2.0, 5.5, 3.1], index=[0, 1, 2])
    again = paired(mine, control.iloc[::-1])
    assert again == paired(mine, control)
    assert paired(mine.iloc[[2, 0, 1]], control).half_width == pytest.approx(again.half_width)


def test_only_common_seeds_are_paired() -> None:
    found = paired(pd.Series([1.0, 5.0], index=[0, 1]), pd.Series([9.0, 5.5], index=[7, 1]))
    assert (found.mean, found.pairs) == (-0.5, 1)
    assert np.isnan(found.low)
    assert np.isnan(found.half_width)


def test_spread_of_a_mean() -> None:
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=1 / np.sqrt(3))
    assert half_width(pd.Series([1.0, 2.0, 3.0])) == pytest.approx((high - low) / 2)
    assert np.isnan(half_width(pd.Series([1.0])))


def test_half_widths_are_a_range_with_its_pairs() -> None:
    rows = pd.DataFrame({"half_width": [0.5, np.nan, 0.12345], "pairs": [3, 1, 2]})
    assert half_widths(rows) == "0.123 to 0.5 (2 to 3 paired seeds)"
    assert half_widths(rows[:1]) == "0.5 (3 paired seeds)"
    assert half_widths(rows[1:2]) == ""
