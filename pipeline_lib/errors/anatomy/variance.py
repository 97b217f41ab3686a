"""Variance of x_t: exposure bias spreads or shrinks the images that the network is given (Ning et al., 2024).

The mean over pixels of the variance over images. Readings: `sampling`, `training` (forward samples), their `ratio`.
Unlike delta it needs no known x_0, so it is read off the ordinary chains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from pipeline_lib.errors.anatomy._views import At


class Options(Model):
    """It has none."""


class Variance(Measure):
    def at(self, here: At) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import ratio, variance

        sampling, training = variance(here.x), variance(here.forward)
        yield Reading("sampling", sampling, len(here.x))
        yield Reading("training", training, here.count)
        yield Reading("ratio", ratio(sampling, training), here.count)


def build(options: Options) -> Variance:
    """The measure."""
    return Variance()
