"""Analytic-DPM (Bao et al., ICLR 2022): DDPM and DDIM with the reverse variance that is best for the predicted mean.

Given eps_theta, the best isotropic variance of a step has a closed form in Gamma_t = E |eps_theta(x_t)|^2 / d over the
training images: E Cov(x_0 | x_t) / d is (s_t / a_t)^2 (1 - Gamma_t), and it is added to that of the step in the share
with which x_0 enters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, noise_variance, predict

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.grid import Grid, Step
    from pipeline_lib.samplers import Correction, Observer


class Options(Model):
    """Options of Analytic-DPM."""

    eta: float = Field(1.0, ge=0, le=1, description="1: its DDPM form; 0: its DDIM form; as eta of DDIM between them")
    clip_variance: bool = Field(
        True, description="hold E Cov(x_0 | x_t) / d to [0, 1], the range that it has for data in [-1, 1]"
    )
    clip_last_pixels: float | None = Field(
        2.0,
        gt=0,
        description="y: the last noise that is added has a mean absolute value of at most y levels of 255; released "
        "2 for the linear schedule and 1 for cosine; null: no limit",
    )
    images: int = Field(1000, ge=2, description="training images from which the rule `moments` measures Gamma_t")
    gamma: dict[int, float] | None = Field(None, description="Gamma_t of each visited t, if it is not to be measured")


def unknown(options: Options) -> list[str]:
    """What the rule `moments` must measure."""
    return ["gamma"] if options.gamma is None else []


def check(options: Options, diffusion: Diffusion, where: str) -> None:
    """Raise BadConfig on a path without discrete steps, whose times gamma could not name."""
    if diffusion.path != "vp":
        raise BadConfig(f"{where}: analytic-dpm is for diffusion.path vp (it is {diffusion.path}).")


def variance(step: Step, options: Options, last_noise: bool) -> float:
    """Variance of a step's noise (Bao et al., Eq. 9 and 12, for any eta). Raises BadConfig where Gamma_t is unknown."""
    if options.gamma is None or round(step.t) not in options.gamma:
        raise BadConfig(f"analytic-dpm knows no Gamma at t = {step.t:g}; let the rule `moments` measure it.")
    own = options.eta**2 * step.posterior_variance
    of_x0 = (step.s / step.a) ** 2 * (1 - options.gamma[round(step.t)])
    if options.clip_variance:
        of_x0 = min(max(of_x0, 0.0), 1.0)
    share = step.a_next - (step.s_next**2 - own) ** 0.5 * step.a / step.s
    total = own + share**2 * of_x0
    if last_noise and options.clip_last_pixels:
        total = min(total, (options.clip_last_pixels * 2 / 255) ** 2 * pi / 2)
    return total


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
    """DDIM's mean; the noise of every step but the last has the variance above."""
    for planned in grid:
        prediction, step = predict(denoiser, x, planned, labels, corrections)
        if observe:
            observe(step, x, prediction)
        own = options.eta**2 * step.posterior_variance
        x = step.a_next * prediction.x0 + (step.s_next**2 - own) ** 0.5 * prediction.eps
        if not step.is_last:
            best = variance(step, options, last_noise=step.index == len(grid) - 2)
            std = noise_variance(step, own, best, corrections) ** 0.5
            x = x + std * draw.normal(Stream.REVERSE, step.index, x.shape[1:])
    return x
