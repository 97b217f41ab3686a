"""Does a curve 'rapidly grow' (Li and van der Schaar, 2024, on Fig. 2), or is it a 'slightly fluctuating horizontal
line' (on Fig. 3)? One verdict a curve, from the intervals of its trends.

grows       the interval of the rank correlation lies above 0, and that of the growth ratio, where defined, above 1.
falls       the same below 0 and below 1.
horizontal  the interval of the rank correlation holds 0, and the curve cannot fluctuate by more than the tolerance: the
            upper end of the fluctuation's interval is not above it. A larger growth would have been seen.
undecided   everything else.

The tolerance is `EFFECTS` of the smallest effects that one step can detect (the median of the null's quantiles), or
half of the curve's mean, whichever is larger: a line on the floor of what is measurable, or one well above it. That
floor falls with the number of chains, so a verdict is one at this number: with few chains a growth that more would show
can pass as a line, and the report says how large a growth is excluded.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

EFFECTS = 3.0
LEVEL = 0.5


def tolerance(values: Iterable[float], quantiles: Iterable[float]) -> float:
    """The largest fluctuation of a horizontal line, from the curve's values and the quantiles of its null, if any."""
    floor = float(np.median(drawn)) if (drawn := list(quantiles)) else 0.0
    return max(EFFECTS * floor, LEVEL * float(np.mean(list(values))), 0.0)


def verdict(trends: Iterable[Mapping[str, Any]], allowed: float) -> str:
    """grows, falls, horizontal or undecided, from the rows of `trends.rows` and the tolerance."""
    intervals = {row["trend"]: (row["low"], row["high"]) for row in trends}
    (rank_low, rank_high), (ratio_low, ratio_high) = intervals["rank-correlation"], intervals["growth-ratio"]
    if rank_low > 0 and not ratio_low <= 1:  # a ratio that is not defined is NaN, and decides nothing
        return "grows"
    if rank_high < 0 and not ratio_high >= 1:
        return "falls"
    if rank_low <= 0 <= rank_high and intervals["fluctuation"][1] <= allowed:
        return "horizontal"
    return "undecided"
