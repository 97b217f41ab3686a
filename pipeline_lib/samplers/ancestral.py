"""Ancestral sampling of DDPM (Ho et al., 2020, Algorithm 2) on any grid of a Gaussian path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.samplers import Draw, predict

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.grid import Grid
    from pipeline_lib.samplers import Correction, Observer


class Options(Model):
    """Options of the ancestral sampler."""

    variance: Literal["fixed-small", "fixed-large"] = Field(
        "fixed-large",
        description="reverse variance: that of q(x_{t-1} | x_t, x_0), or that of q(x_t | x_{t-1}) (beta_t)",
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
    """x_{t-1} ~ N(posterior mean at the predicted x_0, variance); no noise is added by the last step."""
    for planned in grid:
        prediction, step = predict(denoiser, x, planned, labels, corrections)
        if observe:
            observe(step, x, prediction)
        small = options.variance == "fixed-small"
        variance = step.posterior_variance if small else step.forward_variance
        x = step.c_x0 * prediction.x0 + step.c_xt * x
        if not step.is_last:
            x = x + variance**0.5 * draw.normal(Stream.REVERSE, step.index, x.shape[1:])
    return x
