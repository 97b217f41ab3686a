"""An estimate with the jackknife influence of each sample: its standard error, and differences of paired estimates."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """MMD^2 and the jackknife influence of each chain (n,) and each forward sample (m,), float64, centred."""

    value: float
    chains: np.ndarray
    forward: np.ndarray

    @property
    def se(self) -> float:
        """Jackknife standard error of a two-sample statistic. Where both laws are equal, MMD^2 is degenerate and this
        overstates its spread (by about sqrt(2)): the permutation null is the test of equality, not this interval."""
        return sqrt(sum((part**2).sum() / (len(part) * (len(part) - 1)) for part in (self.chains, self.forward)))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided normal interval."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.se
        return self.value - half, self.value + half

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates whose chains i, and whose forward samples j, share their random numbers.

        Only the pairs need to be independent of each other, so what both members of a pair have in common cancels.
        """
        return Estimate(self.value - other.value, self.chains - other.chains, self.forward - other.forward)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates from the same chains and forward samples, with the covariance that they have."""
    columns = zip(*((one.value, one.chains, one.forward) for one in estimates), strict=True)
    value, chains, forward = (np.mean(column, axis=0) for column in columns)
    return Estimate(float(value), chains, forward)
