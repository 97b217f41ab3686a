"""What the searches over epsilon scaling have in common: its options, and the search of b by ever finer strides."""

from __future__ import annotations

import logging
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


def scaling(options: Scaling, **constants: Any) -> dict[str, Any]:
    """The correction with these constants."""
    return {"name": NAME, "scaled": options.scaled, **constants}


def best_b(options: UniformOptions, bench: Bench) -> float:
    """The b of the lowest score. 1, which changes nothing, is on every first stride; a finer one may leave the range
    by less than a stride of the one before."""
    best, low, high = 1.0, options.low, options.high
    for stride in options.strides:
        first, last = ceil((low - best) / stride - 1e-6), floor((high - best) / stride + 1e-6)
        tried = [round(best + i * stride, DIGITS) for i in range(first, last + 1)]
        scores = {b: bench.score(scaling(options, b=b), f"b, stride {stride:g}") for b in tried if b > 0}
        best = min(scores, key=scores.__getitem__)
        if stride == options.strides[0] and best != 1 and best in (min(scores), max(scores)):
            key = "low" if best < 1 else "high"
            log.warning("the best b, %g, is the last that was tried: widen tuning.%s.", best, key)
        low, high = best - stride, best + stride
    return best
