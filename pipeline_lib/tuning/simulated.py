"""A factor for each step by sequential simulation: the next predicted eps shall have the norm that it has in training.

All chains go in lock-step from the true x_T, in sampling order. At each step lambda is sought in a few rounds of the
secant method, for which the norm of the eps that is predicted at the end of the step is that at the true x_u. Then the
chains go on with it. The last step ends at clean data, where nothing is predicted, so it takes the lambda before it.

Near clean data a step hardly changes the norm, and the root would be noise. So lambda is the most probable value under
a random walk: it leaves that of the step before only as far as the norms, with their standard error, ask for it.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.tuning._scaling import DIGITS, NAME, Scaling, scaling

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.tuning._bench import Bench, Found

FINDS = NAME
PER_STEP = AT_GRID_TIMES = True
STRIDE = 0.01  # to the second point of a secant
NEAR = 0.001  # a lambda that was tried this near needs no further round
LEAST_SE = 1e-6  # of a log ratio: that of float32

Point = tuple[float, float, float]  # lambda, ln of the ratio of norms, its standard error


class Options(Scaling):
    """How lambda is sought."""

    rounds: int = Field(3, ge=2, description="simulations of a step: lambda of the step before, a neighbour, secants")
    drift: float = Field(
        0.01, gt=0, description="standard deviation of the change of lambda from step to step that is expected"
    )
    bound: float = Field(0.2, gt=0, lt=1, description="largest distance of lambda from 1")


def find(options: Options, bench: Bench) -> Found:
    """Epsilon scaling with the factors that keep the norms."""
    chains = _Chains(options, bench)
    for place in range(bench.steps - 1):
        chains.factors.append(_solved(options, chains, place))
    return scaling(options, factors=[*chains.factors, *(chains.factors[-1:] or [1.0])])


def _solved(options: Options, chains: _Chains, place: int) -> float:
    """lambda of the step from `place`."""
    before = chains.factors[-1] if chains.factors else 1.0
    second = before + (STRIDE if before + STRIDE <= 1 + options.bound else -STRIDE)
    points = [chains.point(place, value, turn) for turn, value in enumerate((before, second))]
    found = most_probable(options, before, points)
    for turn in range(2, options.rounds):
        if any(abs(found - point[0]) < NEAR for point in points):
            break
        points.append(chains.point(place, found, turn))
        found = most_probable(options, before, points)
    return found


def most_probable(options: Options, before: float, points: list[Point]) -> float:
    """The lambda that minimises (f / se)^2 + ((lambda - before) / drift)^2, f on the secant of the last two points."""
    (a, at_a, _), (b, at_b, se) = points[-2:]
    slope = (at_b - at_a) / (b - a)
    weight = (options.drift / max(se, LEAST_SE)) ** 2
    found = (before + weight * slope * (slope * b - at_b)) / (1 + weight * slope**2)
    return round(min(max(found, 1 - options.bound), 1 + options.bound), DIGITS)


class _Chains:
    """Chains with the factors that were found so far; x_t is brought there only when something must be measured."""

    def __init__(self, options: Options, bench: Bench) -> None:
        self.options, self.bench = options, bench
        self.factors: list[float] = []
        self.place = 0
        self.x: Tensor | None = None
        self.targets: dict[int, Tensor] = {}

    def point(self, place: int, factor: float, turn: int) -> Point:
        """What the norms after the step from `place` with this factor say."""
        from pipeline_lib.tuning._bench import NORM_RATIO, columns, complete, norm_ratio

        bench = self.bench
        left = [1.0] * (bench.steps - place - 1)
        correction = complete(scaling(self.options, factors=[*self.factors, factor, *left]))
        about = {"round": f"step {place}, round {turn}", "metric": NORM_RATIO, "images": bench.known}
        about |= columns(correction)

        def ratio() -> tuple[float, float]:
            _, sampled = bench.advance(place, self._at(place), factor, self.options.scaled)
            return norm_ratio(sampled, self._target(place + 1))

        row = bench.trial(f"step {place}: {about['options']}", ratio, about)
        return factor, log(row["score"]), row["se"] / row["score"]

    def _at(self, place: int) -> Tensor:
        x = self.bench.true(0) if self.x is None else self.x
        for at in range(self.place, place):
            x, _ = self.bench.advance(at, x, self.factors[at], self.options.scaled)
        self.place, self.x = place, x
        return x

    def _target(self, place: int) -> Tensor:
        if place not in self.targets:
            self.targets = {place: self.bench.norms(place, self.bench.true(place))}
        return self.targets[place]
