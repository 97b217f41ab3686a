"""delta_t of Ning et al. (2024): by how much sampling spreads wider about a_t x_0 than the forward process.

`gap` is the mean over pixels of the standard deviation of x_t - a_t x_0, less s_t; delta_t is its square. Readings:
`gap-step` and `delta-step` after one step from the true x_t of the step before, and `gap-chain` and `delta-chain` of
chains that start from a true x_t, of which those from T are the whole-chain delta_t. A chain forgets its x_0 on the
way, so the latter contain variance of the data: they are not exposure bias alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.errors.anatomy._views import After, At


class Options(Model):
    """It has none."""


class Delta(Measure):
    after_leak = True

    def at(self, here: At) -> Iterator[Reading]:
        if here.place > 0:
            yield from _readings("step", here.stepped - here.a * here.x0[: len(here.stepped)], here.s)

    def after(self, here: After) -> Iterator[Reading]:
        yield from _readings("chain", here.x - here.a * here.x0, here.s)


def _readings(name: str, deviation: Tensor, s: float) -> Iterator[Reading]:
    from pipeline_lib.errors.exposure import spread_gap, squared

    gap = spread_gap(deviation, s)
    yield Reading(f"gap-{name}", gap, len(deviation))
    yield Reading(f"delta-{name}", squared(gap), len(deviation))


def build(options: Options) -> Delta:
    """The measure."""
    return Delta()
