"""Ancestral sampling of DDPM (Ho et al., 2020, Algorithm 2) on any grid of a Gaussian path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, noise_variance, predict

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.grid import Grid, Step
    from pipeline_lib.samplers import Correction, Observer


class Options(Model):
    """Options of the ancestral sampler."""

    variance: Literal["fixed-small", "fixed-large", "learned", "learned-or-large"] = Field(
        "fixed-large",
        description="reverse variance: that of q(x_{t-1} | x_t, x_0) (beta~_t), that of q(x_t | x_{t-1}) (beta_t), or "
        "the one between them that the network has learned; learned-or-large: learned where it has, else fixed-large",
    )


def check(options: Options, diffusion: Diffusion, where: str) -> None:
    """Raise BadConfig where a learned variance is asked of a run that learns none."""
    if options.variance == "learned" and not diffusion.learned_variance:
        raise BadConfig(f"{where}: it has learned no variance, {_ASKED_FOR}")


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
    """x_{t-1} ~ N(posterior mean at the predicted x_0, variance); no noise is added by the last step.

    A correction that has `push(x, step)` moves the mean by the variance times it.
    """
    for planned in grid:
        prediction, step = predict(denoiser, x, planned, labels, corrections)
        if observe:
            observe(step, x, prediction)
        pushes = [] if step.is_last else [one.push(x, step) for one in corrections if hasattr(one, "push")]
        x = step.c_x0 * prediction.x0 + step.c_xt * x
        if not step.is_last:
            reverse = _variance(options, step, prediction)
            x = sum((reverse * push for push in pushes), x)
            variance = noise_variance(step, step.posterior_variance, reverse, corrections)
            x = x + variance**0.5 * draw.normal(Stream.REVERSE, step.index, x.shape[1:])
    return x


_ASKED_FOR = (
    "which the sampler's variance 'learned' asks for: train it with diffusion.learned_variance, or say fixed-small, "
    "fixed-large or learned-or-large."
)


def _variance(options: Options, step: Step, prediction: Prediction) -> float | Tensor:
    from pipeline_lib.diffusion.bound import learned_variance

    if options.variance == "fixed-small":
        return step.posterior_variance
    if options.variance == "fixed-large" or (options.variance == "learned-or-large" and prediction.fraction is None):
        return step.forward_variance
    if prediction.fraction is None:
        raise BadConfig(f"this network has learned no variance, {_ASKED_FOR}")
    return learned_variance(step, prediction.fraction)
