"""Estimates of exposure bias: delta_t and eps norms (Ning et al., 2024), each with the influence of every chain.

They take samples along the first dimension, compute in float64, and know their standard error over samples.
"""

from dataclasses import dataclass
from math import hypot, nan, sqrt
from statistics import NormalDist

import torch
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
    forward process, as Ning et al. (2024) say that it always does. A standard deviation of N samples falls short by its
    own variance over 2 sigma, to first order: by 1 / (4 N) of sigma for normal ones, which over many pixels is more
    than the standard error, so it is added.
    """
    flat = deviation.flatten(1).double()
    std = flat.std(0)
    centred, positive = flat - flat.mean(0), std.clamp(min=1e-30)
    influences = (centred.square() - std.square()) / (2 * positive)  # of a constant pixel 0
    short = influences.square().mean(0) / (2 * positive * len(flat))
    return Measured(float((std + short).mean()) - s, float(influences.mean(1).std()) / sqrt(len(flat)))


def rms(eps: Tensor) -> Measured:
    """Root of the mean squared norm of eps (N, ...), over chains."""
    squared = eps.flatten(1).double().square().sum(1)
    value = float(squared.mean().sqrt())
    return Measured(value, float(squared.std()) / (2 * value * sqrt(len(squared))) if value else 0.0)


def mean(values: Tensor) -> Measured:
    """The mean of numbers (N,)."""
    return Measured(float(values.double().mean()), float(values.double().std()) / sqrt(len(values)))


def squared(one: Measured) -> Measured:
    """The square; its standard error is to first order, so too small where the value is within its own error of 0."""
    return Measured(one.value**2, 2 * abs(one.value) * one.se)


def ratio(one: Measured, other: Measured) -> Measured:
    """The quotient of two independent values, neither of them near 0; not a number where one is 0."""
    if not one.value or not other.value:
        return Measured(nan, nan)
    value = one.value / other.value
    return Measured(value, abs(value) * hypot(one.se / one.value, other.se / other.value))


def paired_ratio(one: Tensor, other: Tensor) -> Measured:
    """The quotient of the root mean squared norms of (N, ...) and (N, ...), whose samples i belong together."""
    above, below = (part.flatten(1).double().square().sum(1) for part in (one, other))
    value = float((above.mean() / below.mean()).sqrt())
    influence = (above / above.mean() - below / below.mean()) / 2
    return Measured(value, abs(value) * float(influence.std()) / sqrt(len(above)))


def variance(x: Tensor) -> Measured:
    """The mean over pixels of the variance over samples of x (N, ...), unbiased."""
    flat = x.flatten(1).double()
    influence = (flat - flat.mean(0)).square().mean(1)
    return Measured(float(flat.var(0).mean()), float(influence.std()) / sqrt(len(flat)))


def spread(values: Tensor) -> Measured:
    """The standard deviation of numbers (N,)."""
    values = values.double()
    std = float(values.std())
    influence = (values - values.mean()).square()
    return Measured(std, float(influence.std()) / (2 * std * sqrt(len(values))) if std else 0.0)


def squared_bias(error: Tensor) -> Measured:
    """The mean over pixels of the squared mean of error (N, ...), without the bias that chance adds, so also below 0.

    A U-statistic, the mean product of two different samples: its variance is 4 m'Sm / n + 2 tr(S^2) / n^2 for samples
    of mean m and covariance S, so that the standard error does not vanish where the mean does.
    """
    flat = error.flatten(1).double() / error[0].numel() ** 0.5
    count, centre = len(flat), flat.mean(0)
    own = flat.square().sum(1).mean() - centre.square().sum()
    products = ((flat - centre) @ (flat - centre).T).square()
    of_chance = float(products.sum() - products.diagonal().sum()) / (count * (count - 1))  # tr(S^2)
    linear = max(float((flat @ centre).var()) - of_chance / count, 0.0)
    return Measured(
        float(centre.square().sum() - own / (count - 1)), sqrt(4 * linear / count + 2 * of_chance / count**2)
    )


def correlation(clock: Tensor, y: Tensor) -> Measured:
    """Pearson's correlation of y (P, N) with the clock (P,) over all places and chains; jackknife over chains."""
    clock, y = clock.double() - clock.double().mean(), y.double() - y.double().mean()
    sums = torch.stack((y.sum(0), y.square().sum(0), clock @ y))  # of each chain
    left = torch.cat((sums.sum(1, keepdim=True), sums.sum(1, keepdim=True) - sums), dim=1)
    points = len(clock) * torch.tensor([y.shape[1], *[y.shape[1] - 1] * y.shape[1]], dtype=torch.float64).to(y)
    spread = left[1] - left[0] ** 2 / points
    found = left[2] / (clock.square().mean() * points * spread).sqrt()
    count, others = y.shape[1], found[1:]
    se = float((others - others.mean()).square().sum().mul((count - 1) / count).sqrt())
    return Measured(float(found[0]), se)
