"""The times that a time shift chooses, less those that the grid plans (Li et al., ICLR 2024).

In path units, the mean over images: `start` where the step begins, which the network is told, and `end` where it leads
to. Nothing where no correction moves steps. Read off the chains from true x_T: those of the sampling pass are not
watched, and x_T is noise in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from pipeline_lib.errors.anatomy._views import After


class Options(Model):
    """It has none."""


class ShiftedTime(Measure):
    after_leak = True

    def after(self, here: After) -> Iterator[Reading]:
        import torch

        from pipeline_lib.errors.exposure import mean

        if here.made is None or here.first > 0:
            return
        chosen = {"start": (here.made.t, here.t), "end": (here.made.t_next, here.step.t_next)}
        for name, (found, planned) in chosen.items():
            if isinstance(found, torch.Tensor):
                moved = found.flatten()[: len(here.x)] - planned
                yield Reading(name, mean(moved), len(moved))


def build(options: Options) -> ShiftedTime:
    """The measure."""
    return ShiftedTime()
