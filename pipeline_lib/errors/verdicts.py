"""Does a curve 'rapidly grow' (Li and van der Schaar, 2024, on Fig. 2), or is it a 'slightly fluctuating horizontal
line' (on Fig. 3)? One verdict a curve, from the intervals of its trends.

grows       the interval of the rank correlation lies above 0, and, where the growth ratio is defined, its interval
            above 1.
falls       the same below 0 and below 1.
horizontal  the interval of the rank correlation holds 0, and the curve cannot fluctuate by more than the tolerance: the
            upper end of the fluctuation's interval is not above it. A larger growth would have been seen.
undecided   everything else: also where the chains are too few to tell a fluctuation of the tolerance from none.

The tolerance is the option `errors.tolerance`, or `LEVEL` of the curve's mean, whichever is larger: a line that is as
good as zero, or one well above it. Neither depends on the number of chains, so more chains make undecided curves
decided, and leave the others what they are but for chance. The option's scale is that of the kernels: k(x, x) = 1, so
MMD^2 is at most 2, and a law of which the share p is another law has p^2 times its MMD^2 [derived]. The default of
0.001 is what wrong samples in a share of 1 in 45 make if they are as far off as can be, and in a larger share if not.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

LEVEL = 0.5


def tolerance(values: Iterable[float], least: float) -> float:
    """The largest fluctuation of a horizontal line, from the curve's values and the option `errors.tolerance`."""
    return max(least, LEVEL * float(np.mean(list(values))))


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
