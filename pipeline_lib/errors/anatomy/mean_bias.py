"""Mean biases of the prediction: how far the mean predicted eps is from 0, and the mean predicted x_0 from the data's.

The squared bias of the mean image, averaged over pixels, without what chance adds to it (a U-statistic, so it can be
below 0). A norm can grow because predictions spread or because they shift; this tells the second. Readings:
`eps-sampling`, `eps-training`, `x0-sampling`, `x0-training`; in training each image is paired with its own eps and x_0.
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


class MeanBias(Measure):
    def at(self, here: At) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import squared_bias

        if here.is_clean:
            return
        sampled, trained = here.sampled, here.trained
        errors = {
            "eps-sampling": sampled.eps,
            "eps-training": trained.eps - here.eps,
            "x0-sampling": sampled.x0 - here.x0[: len(sampled.x)],
            "x0-training": trained.x0 - here.x0,
        }
        for name, error in errors.items():
            yield Reading(name, squared_bias(error), len(error))


def build(options: Options) -> MeanBias:
    """The measure."""
    return MeanBias()
