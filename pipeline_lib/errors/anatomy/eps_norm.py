"""Norms of the predicted eps: larger while sampling than in training is how exposure bias shows (Ning et al., 2024).

The root of the mean squared norm over images, which has a closed form on Gaussian data; Ning et al. plot the mean norm,
smaller by a share of about 1 / (4 d). Readings: `sampling`, `training` (at forward samples) and their `ratio`; of
chains that start from a true x_t, below it, `ratio` to forward samples of the same images.
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


class EpsNorm(Measure):
    after_leak = True

    def __init__(self) -> None:
        self.training: dict[int, Tensor] = {}  # norms (images, 1) in training, by place

    def at(self, here: At) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import ratio, rms

        if here.is_clean:
            return
        sampling, training = rms(here.sampled.eps), rms(here.trained.eps)
        self.training[here.place] = here.trained.eps[: here.subject.images].flatten(1).norm(dim=1, keepdim=True)
        yield Reading("sampling", sampling, len(here.sampled.x))
        yield Reading("training", training, here.count)
        yield Reading("ratio", ratio(sampling, training), here.count)

    def after(self, here: After) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import paired_ratio

        if here.place > here.first and not here.is_clean:
            yield Reading("ratio", paired_ratio(here.prediction.eps, self.training[here.place]), len(here.x))


def build(options: Options) -> EpsNorm:
    """The measure."""
    return EpsNorm()
