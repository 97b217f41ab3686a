"""DDIM (Song et al., 2021, Eq. 12 and 16) on any grid of a Gaussian path; at eta = 0 Euler's step of the ODE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.samplers import Draw, noise_variance, predict

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.grid import Grid
    from pipeline_lib.samplers import Correction, Observer


class Options(Model):
    """Options of DDIM."""

    eta: float = Field(
        0.0,
        ge=0,
        le=1,
        description="noise of each step over the standard deviation of q(x_{t-1} | x_t, x_0): 0 adds none, 1 is "
        "ancestral sampling with variance fixed-small",
    )


def sample(
    denoiser: Denoising,
    grid: Grid,
    x: Tensor,
    draw: Draw,
    options: Options,
    labels: Tensor | None = None,
    corrections: Sequence[Correction] = (),
    observe: Observer | None = None,
) -> Tensor:
    """x_u = a_u x_0 + sqrt(s_u^2 - variance) eps + noise; where x_0 is clipped, eps is that of the clipped x_0."""
    for planned in grid:
        prediction, step = predict(denoiser, x, planned, labels, corrections)
        if observe:
            observe(step, x, prediction)
        own = options.eta**2 * step.posterior_variance
        x = step.a_next * prediction.x0 + (step.s_next**2 - own) ** 0.5 * prediction.eps
        if not step.is_last:
            variance = noise_variance(step, own, own, corrections)
            if options.eta or variance is not own:
                x = x + variance**0.5 * draw.normal(Stream.REVERSE, step.index, x.shape[1:])
    return x
