"""How strictly the norm of x_t tells the noise level: correlation of ln |x_t / a_t| with ln (s_t / a_t).

A network that can read the noise level off the norm is thrown off by norms that it has not seen at that t. In high
dimension the norm of Gaussian noise hardly varies, so the tie is strict; the heavy-tailed noise of PFGM++ loosens it
(Xu et al., 2023). x_t / a_t = x_0 + (s_t / a_t) eps makes paths compare. Readings, one of the whole pass: `sampling`
and `training`, over all measured t > 0; at each t `spread-sampling` and `spread-training`, the standard deviation of
ln |x_t| over images.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import TYPE_CHECKING

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.errors.anatomy._views import At


class Options(Model):
    """It has none."""


class NormCorrelation(Measure):
    def __init__(self) -> None:
        self.clock: list[float] = []
        self.norms: dict[str, list[Tensor]] = {"sampling": [], "training": []}

    def at(self, here: At) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import spread

        if here.is_clean:
            return
        self.clock.append(log(here.s / here.a))
        for name, x in (("sampling", here.x), ("training", here.forward)):
            norms = (x / here.a).flatten(1).double().norm(dim=1).log()
            self.norms[name].append(norms)
            yield Reading(f"spread-{name}", spread(norms), len(norms))

    def whole(self) -> Iterator[Reading]:
        import torch

        from pipeline_lib.errors.exposure import correlation

        if len(self.clock) > 1:
            for name, norms in self.norms.items():
                y = torch.stack(norms)
                yield Reading(name, correlation(torch.tensor(self.clock).to(y), y), y.shape[1])


def build(options: Options) -> NormCorrelation:
    """The measure."""
    return NormCorrelation()
