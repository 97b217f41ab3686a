"""Variance downscaling (discussed by Ning et al., ICLR 2024, beside epsilon scaling [memory, low]): each step adds that
noise with which x_u has the variance of the forward process, although the predicted x_0 errs.

A step makes x_u = share x_0' + keep x_t + noise, with share + keep a_t = a_u. Were x_0' = x_0, noise of the variance
own = s_u^2 - keep^2 s_t^2 would make q(x_u | x_0). With the error e = x_0' - x_0 the variance of x_u is larger by
share^2 E e^2 + 2 share Cov(e, share x_0 + keep x_t), which the noise gives up. Two readings:

paper     e is independent of x_0 and x_t, as Ning et al. assume [found], so that the second term is 0.
measured  Both terms, from the variance of x_0' over that of x_0 and from Cov(e, x_t) [derived]. The best denoiser has
          Cov(e, x_0) = -E e^2 and Cov(e, x_t) = 0: it asks for share^2 E e^2 *more* noise, as Analytic-DPM adds it.

Where more would have to be given up than there is, the step is infeasible and adds none; so is every step of DDIM at
eta 0 in the paper's reading. The noise is set, not scaled: what variance the sampler would choose makes no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Prediction
    from pipeline_lib.diffusion.grid import Step
    from pipeline_lib.diffusion.paths import GaussianPath

READ = {"paper": ("x0_error",), "measured": ("x0_excess", "x0_cross")}


class Options(Model):
    """What is known of the error of the predicted x_0; the rule `moments` measures what is not given."""

    reading: Literal["paper", "measured"] = Field(
        "paper", description="paper: the error is taken to be independent of x_0 and x_t; measured: as it is"
    )
    images: int = Field(1000, ge=2, description="training images on which the rule `moments` measures the error")
    x0_error: dict[int, float] | None = Field(
        None, description="mean squared error of the predicted x_0 at each visited t, if it is not to be measured"
    )
    x0_excess: dict[int, float] | None = Field(
        None, description="variance of the predicted x_0 less that of x_0, likewise"
    )
    x0_cross: dict[int, float] | None = Field(
        None, description="covariance of the error of the predicted x_0 with x_t, likewise"
    )


def unknown(options: Options) -> list[str]:
    """What the rule `moments` must measure."""
    return [name for name in READ[options.reading] if getattr(options, name) is None]


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig on a path without discrete steps, whose times the options could not name."""
    if diffusion.path != "vp":
        raise BadConfig(f"{where}: variance-downscaling is for diffusion.path vp (it is {diffusion.path}).")


class VarianceDownscaling:
    """The correction; it leaves predictions alone and sets the variance of the noise."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.infeasible: dict[int, bool] = {}  # by step

    def __call__(self, prediction: Prediction, step: Step) -> Prediction:
        return prediction

    def noise(self, step: Step, own: float) -> float:
        """The variance of the step's noise; 0 where the step is infeasible. Raises BadConfig at an unknown t."""
        keep = (step.s_next**2 - own) ** 0.5 / step.s
        share = step.a_next - keep * step.a
        if self.options.reading == "paper":
            excess = share**2 * self._at("x0_error", step)
        else:
            excess = share**2 * self._at("x0_excess", step) + 2 * share * keep * self._at("x0_cross", step)
        self.infeasible[step.index] = own < excess
        return max(own - excess, 0.0)

    def facts(self) -> dict[str, float]:
        """Of the steps that add noise, the share that is infeasible."""
        return {"infeasible": sum(self.infeasible.values()) / max(len(self.infeasible), 1)}

    def _at(self, name: str, step: Step) -> float:
        known = getattr(self.options, name)
        if known is None or round(step.t) not in known:
            raise BadConfig(
                f"variance-downscaling knows no {name} at t = {step.t:g}; let the rule `moments` measure it."
            )
        return float(known[round(step.t)])


def build(options: Options, path: GaussianPath, steps: int) -> VarianceDownscaling:
    """The correction for one batch of chains."""
    return VarianceDownscaling(options)
