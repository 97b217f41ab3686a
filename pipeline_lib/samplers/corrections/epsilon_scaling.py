"""Epsilon scaling (Ning et al., ICLR 2024): the predicted eps is divided by lambda_i = k i + b, a little above 1.

i counts the steps that are left after this one: n - 1 at the first of n steps, 0 at the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline_lib.config.base import Model
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Prediction
    from pipeline_lib.diffusion.grid import Step
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.samplers import Correction


class Options(Model):
    """lambda_i, and what is scaled."""

    b: float = Field(1.0, description="lambda at the last step; at all steps where k is 0")
    k: float = Field(0.0, description="slope: what lambda grows by with each step that is left")
    factors: list[float] | None = Field(
        None,
        min_length=1,
        description="lambda of every step in sampling order, from the first call on, in place of b and k",
    )
    scaled: Literal["eps", "x0"] = Field(
        "eps",
        description="eps: the whole prediction, as released for ADM (before x_0 is clipped) and EDM (at both "
        "evaluations of Heun); x0: x_0 alone is computed from the scaled eps, while eps stays, as released for LDM",
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Options:
        if self.factors is not None and (self.b, self.k) != (1.0, 0.0):
            raise ValueError("give either factors, or b and k")
        return self


def factors(options: Options, steps: int) -> list[float]:
    """lambda of every step in sampling order."""
    return options.factors or [options.k * left + options.b for left in reversed(range(steps))]


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig where a lambda is not above 0, or where their number is wrong."""
    found = factors(options, steps)
    if len(found) != steps:
        raise BadConfig(f"{where}: epsilon-scaling has {len(found)} factors, but there are {steps} steps.")
    if min(found) <= 0:
        at = found.index(min(found))
        raise BadConfig(f"{where}: lambda of epsilon-scaling is {min(found):.4g} at step {at} of {steps}, not above 0.")


def build(options: Options, path: GaussianPath, steps: int) -> Correction:
    """The correction; where lambda is 1 it returns the very prediction that it is given."""
    from pipeline_lib.diffusion.denoiser import Split

    found = factors(options, steps)

    def scale(prediction: Prediction, step: Step) -> Prediction:
        value = found[step.index]
        if value == 1:
            return prediction
        scaled = prediction.with_eps(prediction.eps / value)
        return scaled if options.scaled == "eps" else Split(prediction, scaled.x0)

    return scale
