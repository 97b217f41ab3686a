"""The leak test: chains that start from a true x_t, and how far from the forward samples they have come.

MMD^2 against forward samples of other images, under one kernel at the bandwidth for all t. The error that a chain has
at x_0 when it starts at t is that of the steps below t alone: how it grows with the start says which steps it comes
from (Ning et al., 2024, compare FID of such chains). Reading: `mmd2`, which is that of true samples at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from pipeline_lib.errors.anatomy._views import After


class Options(Model):
    """Which kernel."""

    kernel: Literal["laplace", "gaussian", "rational-quadratic"] = Field("laplace", description="kernel of MMD^2")


class Leak(Measure):
    after_leak = True

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel

    def after(self, here: After) -> Iterator[Reading]:
        from pipeline_lib.diffusion.kernels import KERNELS, squared_distances
        from pipeline_lib.errors.exposure import Measured
        from pipeline_lib.errors.uncertainty import estimate

        subject, count = here.subject, len(here.x)
        scale = subject.scale(here.place)
        others = subject.true(here.place, len(subject.pairs.x0))[count : 3 * count]
        x, y = here.x.flatten(1) / scale, others.flatten(1) / scale
        length = subject.frozen.length_scale(here.row["log_snr"] if here.s else inf, "shared")
        distances = squared_distances(x), squared_distances(x, y), squared_distances(y)
        xx, xy, yy = (KERNELS[self.kernel](d, length) for d in distances)
        found = estimate(xx, xy, yy)
        yield Reading("mmd2", Measured(found.value, found.se), count)


def build(options: Options) -> Leak:
    """The measure."""
    return Leak(options.kernel)
