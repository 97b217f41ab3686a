"""Means with their 95 % t-intervals, and differences that are paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import pandas as pd
from scipy.special import stdtrit  # the t-quantile of scipy.stats, whose import takes a second

CONFIDENCE = 0.95
ROUNDING = 1e-12  # of the values: a difference below it is what float64 leaves of one that cancels


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences with its t-interval; `low` and `high` are NaN with fewer than two pairs."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def half_width(self) -> float:
        """Below it a difference cannot be told from zero with so many pairs."""
        return (self.high - self.low) / 2


def paired(values: "pd.Series[float]", control: "pd.Series[float]") -> Interval:
    """Differences of two series over the seeds (their index) that both have, whatever their order."""
    found = (values - control.reindex(values.index)).dropna()
    mean, half = float(found.mean()), half_width(found)
    if abs(mean) < ROUNDING * values.abs().max():
        mean = 0.0
    return Interval(mean, mean - half, mean + half, len(found))


def half_width(values: "pd.Series[float]") -> float:
    """Half the 95 % t-interval of a mean; NaN with fewer than two values."""
    if len(values) < 2:
        return nan
    return float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std() / sqrt(len(values)))


def half_widths(rows: pd.DataFrame) -> str:
    """The half-widths of the intervals of `rows` from smallest to largest with their pairs; '' where there is none."""
    known = rows[rows["half_width"].notna()]
    if known.empty:
        return ""
    return f"{_span(known['half_width'])} ({_span(known['pairs'])} paired seeds)"


def _span(values: "pd.Series[float]") -> str:
    ends: Sequence[float] = (values.min(), values.max())
    return " to ".join(dict.fromkeys(f"{v:.3g}" for v in ends))
