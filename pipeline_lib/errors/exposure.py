"""Estimates of exposure bias: delta_t and eps norms (Ning et al., 2024), each with the influence of every chain."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """A value and its standard error."""

    value: float
    se: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided normal interval."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.se
        return self.value - half, self.value + half


def spread_gap(deviation: Tensor, s: float) -> Measured:
    """The mean over pixels of the standard deviation of x_u - a_u x_0 (N, ...), less s.

    delta_t is its square. The signed gap is what has an interval: positive where sampling spreads wider than the
    forward process, as Ning et al. (2024) say that it always does.
    """
    flat = deviation.flatten(1).double()
    std = flat.std(0)
    centred = flat - flat.mean(0)
    influence = ((centred.square() - std.square()) / (2 * std)).mean(1)
    return Measured(float(std.mean()) - s, float(influence.std()) / sqrt(len(flat)))


def rms(eps: Tensor) -> Measured:
    """Root of the mean squared norm of eps (N, ...), over chains."""
    squared = eps.flatten(1).double().square().sum(1)
    value = float(squared.mean().sqrt())
    return Measured(value, float(squared.std()) / (2 * value * sqrt(len(squared))))
