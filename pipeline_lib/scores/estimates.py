"""A score with the influence of each sample on it: its standard error, its interval, and paired differences.

The influence of sample i is the derivative of the score towards a law that gives more weight to i. A score moves with
its samples as the mean of their influences does, to first order, so one pass over features gives what a bootstrap
would draw hundreds of times (the infinitesimal jackknife; Efron, 1982, ch. 6). The reference counts as known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A score and the influence (n,) of each sample on it, float64 and centred."""

    value: float
    influence: np.ndarray

    @property
    def se(self) -> float:
        """Standard error over samples: that of a new draw of as many from the same network."""
        n = len(self.influence)
        return sqrt(float((self.influence**2).sum()) / (n * (n - 1))) if n > 1 else float("nan")

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Two-sided normal interval for the expected score at this number of samples."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.se
        return self.value - half, self.value + half

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates whose samples i share their random numbers.

        What both members of a pair have in common cancels; the bias of equal numbers of samples nearly does. Raises
        ValueError where the numbers differ.
        """
        if len(self.influence) != len(other.influence):
            raise ValueError(f"{len(self.influence)} and {len(other.influence)} samples cannot be paired")
        return Estimate(self.value - other.value, self.influence - other.influence)


class Share(Estimate):
    """The share of samples of which something is true; its value lies between 0 and 1."""

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's score interval (1927), which holds more than the share itself where that is 0 or 1."""
        n, z = len(self.influence), NormalDist().inv_cdf((1 + confidence) / 2)
        centre, scale = self.value + z**2 / (2 * n), 1 + z**2 / n
        half = z * sqrt(self.value * (1 - self.value) / n + (z / (2 * n)) ** 2)
        low, high = (centre - half) / scale, (centre + half) / scale
        return max(0.0, min(low, self.value)), min(1.0, max(high, self.value))  # at 0 and 1 to the last digit


def mean(found: Sequence[Estimate]) -> Estimate:
    """The mean of estimates whose samples i share their random numbers, such as those of training seeds.

    Its standard error knows of what they share, as the root mean square of theirs would not. Raises ValueError where
    their numbers of samples differ.
    """
    if len(sizes := {len(one.influence) for one in found}) != 1:
        raise ValueError(f"{sorted(sizes)} samples have no mean")
    return Estimate(float(np.mean([one.value for one in found])), np.mean([one.influence for one in found], axis=0))


def variance_between(found: Sequence[Estimate]) -> float:
    """The variance between trainings of the score that each would have without the noise of its samples, from two on.

    Samples i share their random numbers, so the errors e of two scores have much in common, which their spread does not
    show: E[sd^2] = that variance + mean over pairs of Var(e_i - e_j) / 2 [derived]. The influences give the second
    term, whatever is shared: half the mean square of their differences over pairs is their variance over trainings.
    Unbiased to first order, hence below zero by chance where trainings hardly differ. Raises ValueError where the
    numbers of samples differ, or there is a single training.
    """
    if len(found) < 2 or len({len(one.influence) for one in found}) > 1:
        raise ValueError("a variance between trainings needs two, scored on as many samples")
    n = len(found[0].influence)
    of_samples = float(np.var([one.influence for one in found], axis=0, ddof=1).sum()) / (n * (n - 1))
    return float(np.var([one.value for one in found], ddof=1)) - of_samples


def joined(found: Sequence[Estimate]) -> Estimate:
    """The mean of estimates from independent sets of equally many samples: each sample of the union moves it alike.

    Of shares, the share among all of them."""
    kind = Share if all(isinstance(one, Share) for one in found) else Estimate
    return kind(float(np.mean([one.value for one in found])), np.concatenate([one.influence for one in found]))


def between(places: Sequence[float], found: Sequence[Estimate], place: float) -> Estimate | None:
    """The estimate at `place` on the straight line between its neighbours, whose samples i share their random numbers.

    `places` rise. None before the first and behind the last: nothing is extrapolated.
    """
    ends = around(places, place)
    if ends is None:
        return None
    left, right = ends
    one, other = found[left], found[right]
    if left == right:
        return one
    if len(one.influence) != len(other.influence):
        raise ValueError(f"{len(one.influence)} and {len(other.influence)} samples cannot be paired")
    weight = (place - places[left]) / (places[right] - places[left])
    value = (1 - weight) * one.value + weight * other.value
    return Estimate(value, (1 - weight) * one.influence + weight * other.influence)


def around(places: Sequence[float], place: float) -> tuple[int, int] | None:
    """Which of `places`, which rise, lie before and behind `place`: twice the same where it is one of them."""
    if not places or not places[0] <= place <= places[-1]:
        return None
    right = int(np.searchsorted(places, place))
    return (right, right) if places[right] == place else (right - 1, right)


def share(hits: np.ndarray) -> Share:
    """The share of samples (n,) of which something is true."""
    value = float(np.mean(hits))
    return Share(value, hits.astype(np.float64) - value)
