"""Gain of a perturbation: what is left at u of a small change of x_t, the answer to whether modules correct errors.

Two chains from the same true x_t, one of them perturbed, with the same noise in every step. `gain` is the quotient of
the root mean squared norms of their difference at u and at t, each over the root mean square of x there: 1 hands an
error on, below 1 corrects it, above 1 amplifies it (Li and van der Schaar, 2024, on modules that are robust to
inaccurate inputs). Of the sampler as it is, corrections and clipping included.
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


class Gain(Measure):
    after_leak = perturbed = True

    def after(self, here: After) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import paired_ratio

        count = len(here.twins)
        now = (here.twins - here.x[:count]) / here.subject.scale(here.place)
        yield Reading("gain", paired_ratio(now, here.perturbation / here.subject.scale(here.first)), count)


def build(options: Options) -> Gain:
    """The measure."""
    return Gain()
