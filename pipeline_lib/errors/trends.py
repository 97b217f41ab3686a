"""Does the error grow along the chain? Statistics of an error curve, with intervals that know its points correlate.

Curves run in sampling order: step 0 is x_T, the last is x_0.

growth-ratio      mean of the last quarter of the curve over the mean of the first. Not defined, and so empty, where the
                  first quarter is not above 0 (an unbiased estimate of no error is as often below).
rank-correlation  Spearman's, of MMD^2 with the step: 1 where the error only grows as sampling proceeds.
exponential-rate  slope of ln MMD^2 over step / (number of steps), by least squares on the positive values; empty where
                  these are fewer than three, or fewer than 3/4 of all: the rest would be a curve of other steps.
                  e^rate is the growth over the whole chain.
fluctuation       largest less smallest of the means of the curve's four quarters: a growth, fall or bump of MMD^2.
                  Noise alone makes it positive, so the upper end of its interval is a cautious bound.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from pipeline_lib.errors.jackknife import Estimate

DRAWS = 500
POSITIVE = 0.75  # share of the points that an exponential rate needs
# What a redrawn curve without a value counts as, at the lower and the upper end of the interval: a ratio to nothing is
# large, everything else may be anything.
UNDEFINED = {"growth-ratio": (np.inf, np.inf)}
ANYTHING = (-np.inf, np.inf)


def growth_ratio(curves: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(..., times) -> (...)."""
    quarter = max(1, curves.shape[-1] // 4)
    first, last = curves[..., :quarter].mean(-1), curves[..., -quarter:].mean(-1)
    return np.divide(last, first, out=np.full_like(first, np.nan), where=first > 0)


def rank_correlation(curves: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(..., times) -> (...)."""
    ranks, steps = rankdata(curves, axis=-1), rankdata(progress)
    ranks, steps = ranks - ranks.mean(-1, keepdims=True), steps - steps.mean()
    spread = np.sqrt((ranks**2).sum(-1) * (steps**2).sum())
    return np.divide((ranks * steps).sum(-1), spread, out=np.full_like(spread, np.nan), where=spread > 0)


def exponential_rate(curves: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(..., times) -> (...)."""
    positive = curves > 0
    logs = np.log(np.where(positive, curves, 1.0))
    counted = positive.sum(-1)
    centre = (positive * progress).sum(-1) / np.maximum(counted, 1)
    offsets = positive * (progress - centre[..., None])
    spread = (offsets**2).sum(-1)
    enough = counted >= max(3, POSITIVE * curves.shape[-1])
    return np.divide((offsets * logs).sum(-1), spread, out=np.full_like(spread, np.nan), where=enough)


def fluctuation(curves: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(..., times) -> (...)."""
    quarters = np.array_split(curves, min(4, curves.shape[-1]), axis=-1)
    means = np.stack([quarter.mean(-1) for quarter in quarters], -1)
    return means.max(-1) - means.min(-1)


TRENDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "growth-ratio": growth_ratio,
    "rank-correlation": rank_correlation,
    "exponential-rate": exponential_rate,
    "fluctuation": fluctuation,
}


def rows(curve: Sequence[Estimate], progress: np.ndarray, confidence: float, seed: int) -> list[dict[str, Any]]:
    """Value and percentile interval of every trend of one curve; `progress` (times,) is its steps over their number."""
    values = np.array([point.value for point in curve])
    draws = bootstrap(curve, seed)
    found = []
    for name, statistic in TRENDS.items():
        value = float(statistic(values, progress))
        low, high = np.nan, np.nan
        if np.isfinite(value):
            low, high = interval(statistic(draws, progress), confidence, UNDEFINED.get(name, ANYTHING))
        found.append({"trend": name, "value": value, "low": low, "high": high, "confidence": confidence})
    return found


def bootstrap(curve: Sequence[Estimate], seed: int, draws: int = DRAWS) -> np.ndarray:
    """(draws, times): curves redrawn by Gaussian multipliers on the jackknife influences.

    A chain, and a forward sample, has one multiplier at all t, since it is the same one at all t: so the draws have
    the covariance over t that the estimates have.
    """
    rng = np.random.default_rng(seed)
    redrawn = np.tile([point.value for point in curve], (draws, 1))
    for side in ("chains", "forward"):
        influence = np.stack([getattr(point, side) for point in curve], 1)
        n = len(influence)
        redrawn += rng.standard_normal((draws, n)) @ influence / np.sqrt(n * (n - 1))
    return redrawn


def interval(draws: np.ndarray, confidence: float, undefined: tuple[float, float] = ANYTHING) -> tuple[float, float]:
    """Percentiles; a draw that is NaN counts as `undefined` at the lower and at the upper end."""
    tail = (1 - confidence) / 2
    last = len(draws) - 1
    lower, upper = (np.sort(np.where(np.isnan(draws), value, draws)) for value in undefined)
    return float(lower[int(np.floor(tail * last))]), float(upper[int(np.ceil((1 - tail) * last))])
