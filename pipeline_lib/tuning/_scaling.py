"""What the searches over epsilon scaling have in common: its options, and the search of b by ever finer strides."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import ceil, floor
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline_lib.config.base import Model

if TYPE_CHECKING:
    from pipeline_lib.tuning._bench import Bench

log = logging.getLogger(__name__)

NAME = "epsilon-scaling"
DIGITS = 10  # decimals of a constant: sums of strides are not exact


def _falling(strides: list[float]) -> list[float]:
    if any(s <= 0 for s in strides) or any(b >= a for a, b in pairwise(strides)):
        raise ValueError("strides must be positive, and each smaller than the one before")
    return strides


class Scaling(Model):
    """What every way says of epsilon scaling."""

    images: int = Field(10_000, ge=2, description="chains of a trial")
    scaled: Literal["eps", "x0"] = Field("eps", description="reading of epsilon-scaling")


class UniformOptions(Scaling):
    """Where b is sought."""

    low: float = Field(0.99, gt=0, le=1, description="smallest b of the first stride; it may be below 1")
    high: float = Field(1.03, ge=1, description="largest b of the first stride")
    reach: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="while the best b is the first or last that was tried, the first stride goes on beyond low or "
        "high, so far from 1 at most; 0: never",
    )
    strides: Annotated[list[float], AfterValidator(_falling)] = Field(
        [0.005, 0.001],
        min_length=1,
        description="distances of the tried b; each finer one is tried around the best of the one before. For edm, "
        "whose constants lie nearer to 1, end with 1e-4",
    )

    @model_validator(mode="after")
    def _has_trials(self) -> UniformOptions:
        if self.high - self.low < self.strides[0]:
            raise ValueError("the first stride is longer than the way from low to high")
        return self

    @property
    def least(self) -> float:
        """No b is smaller."""
        return min(self.low, round(1 - self.reach, DIGITS))

    @property
    def most(self) -> float:
        """No b is larger."""
        return max(self.high, round(1 + self.reach, DIGITS))


def scaling(options: Scaling, **constants: Any) -> dict[str, Any]:
    """The correction with these constants."""
    return {"name": NAME, "scaled": options.scaled, **constants}


def best_b(options: UniformOptions, bench: Bench) -> float:
    """The b of the lowest score. 1, which changes nothing, is on every first stride; finer ones stay in its range."""
    scores = _first_stride(options, bench)
    best, low, high = _lowest(scores), min(scores), max(scores)
    if best != 1 and best in (low, high):
        key = "low" if best < 1 else "high"
        log.warning("the best b, %g, is the last that was tried: widen tuning.%s or tuning.reach.", best, key)
    for before, stride in pairwise(options.strides):
        first, last = max(best - before, low), min(best + before, high)
        best = _lowest(_scores(options, bench, stride, _range(stride, best, first, last)))
    return best


def _first_stride(options: UniformOptions, bench: Bench) -> dict[float, float]:
    """b -> score from `low` to `high`, and on from there while the best is the first or last, within `reach`."""
    stride = options.strides[0]
    scores = _scores(options, bench, stride, _range(stride, 1.0, options.low, options.high))
    for side, end in ((-1, min), (1, max)):
        while (last := end(scores)) == _lowest(scores):
            beyond = round(last + side * stride, DIGITS)
            if not options.least <= beyond <= options.most:
                break
            scores |= _scores(options, bench, stride, [beyond])
    return scores


def _scores(options: UniformOptions, bench: Bench, stride: float, tried: Iterable[float]) -> dict[float, float]:
    return {b: bench.score(scaling(options, b=b), f"b, stride {stride:g}") for b in tried}


def _range(stride: float, middle: float, low: float, high: float) -> list[float]:
    """Numbers from `low` to `high`, whole strides from `middle`."""
    first, last = ceil((low - middle) / stride - 1e-6), floor((high - middle) / stride + 1e-6)
    return [round(middle + i * stride, DIGITS) for i in range(first, last + 1)]


def _lowest(scores: Mapping[float, float]) -> float:
    return min(scores, key=scores.__getitem__)
