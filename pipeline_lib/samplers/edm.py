"""The sampler of EDM (Karras et al., 2022, Algorithm 2): Euler or Heun on the ODE dx/dsigma = (x - D) / sigma.

Noise is added before a step where `s_churn` asks for it. For paths edm and pfgm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, predict

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.grid import Grid, Step
    from pipeline_lib.samplers import Correction, Observer

LARGEST_CHURN = 2**0.5 - 1  # no step adds more noise than there is


class Options(Model):
    """Options of the sampler of EDM."""

    order: Literal[1, 2] = Field(2, description="1: Euler, a call per step; 2: Heun, 2 n - 1 calls in n steps")
    s_churn: float = Field(
        0.0,
        ge=0,
        description="strength of the noise: each of n steps starts at sigma (1 + s_churn / n), at most sqrt 2",
    )
    s_min: float = Field(0.0, ge=0, description="smallest sigma to which noise is added")
    s_max: float | None = Field(None, gt=0, description="largest sigma to which noise is added; null: no limit")
    s_noise: float = Field(
        1.0, ge=0, description="standard deviation of the added noise, over what s_churn needs; nothing without s_churn"
    )


def steps(options: Options, nfe: int) -> int:
    """Steps that make `nfe` calls; raises BadConfig for an even number of calls of Heun's method."""
    if options.order == 1:
        return nfe
    if nfe % 2 == 0:
        raise BadConfig(
            f"nfe is {nfe}, but Heun's method makes 2 n - 1 calls in n steps: give an odd number, or order 1."
        )
    return (nfe + 1) // 2


def check(options: Options, diffusion: Diffusion, where: str) -> None:
    """Raises BadConfig for a variance-preserving path, whose network knows no sigma between its steps."""
    if diffusion.path == "vp":
        raise BadConfig(f"{where}: sampler edm is for diffusion.path edm or pfgm; take ancestral or ddim for vp.")


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
    """x_0; `observe` sees x_t of the grid with the first prediction of its step, which is of x at more noise where
    there is churn. Corrections act on both predictions of a step."""

    def slope(x: Tensor, sigma: float, step: Step) -> tuple[Tensor, Prediction]:
        prediction, _ = predict(denoiser, x, replace(step, t=sigma, s=sigma), labels, corrections)
        return (x - prediction.x0) / sigma, prediction

    for step in grid:
        noised, sigma = _churned(x, step, len(grid), draw, options)
        first, prediction = slope(noised, sigma, step)
        if observe:
            observe(step, x, prediction)
        x = noised + (step.t_next - sigma) * first
        if options.order == 2 and not step.is_last:
            second, _ = slope(x, step.t_next, step)
            x = noised + (step.t_next - sigma) * (first + second) / 2
    return x


def _churned(x: Tensor, step: Step, count: int, draw: Draw, options: Options) -> tuple[Tensor, float]:
    """x with noise added, and its sigma."""
    within = options.s_min <= step.t and (options.s_max is None or step.t <= options.s_max)
    if not options.s_churn or not within:
        return x, step.t
    sigma = step.t * (1 + min(options.s_churn / count, LARGEST_CHURN))
    added = options.s_noise * (sigma**2 - step.t**2) ** 0.5
    return x + added * draw.normal(Stream.REVERSE, step.index, x.shape[1:]), sigma
