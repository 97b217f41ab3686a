"""Time shift (Li et al., ICLR 2024): the time whose noise level fits the variance of each image, within a window.

The variance of an image is taken over all its values, unbiased. Three readings, which differ in where the found time
tau goes, all on paths with discrete steps:

paper         Algorithm 3 [found]. After the step from t, while t is above the cutoff, tau is the time around t whose
              1 - alpha_bar is nearest to the variance of x_{t-1}; network and step then take tau for the next time, and
              a step goes as far as it was planned [derived]. At window 0 this is a shift by one step.
released      The code for DDIM and PNDM [found]. tau is sought around the planned end of the step, with the variance of
              the image before it; only the level that the step leads to is tau's. The first step is planned.
released-adm  The code for ADM [found]. As released, but sought around t, and the step leads to tau less its length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.diffusion.denoiser import Prediction
    from pipeline_lib.diffusion.grid import Step
    from pipeline_lib.diffusion.paths import GaussianPath, VPPath


class Options(Model):
    """Where a time is sought, and until when."""

    window: int = Field(ge=0, description="w: times from w / 2 below to w / 2 above the middle are tried")
    cutoff: int = Field(ge=0, description="t_c: times up to it are not shifted; T switches the shift off")
    reading: Literal["paper", "released", "released-adm"] = Field(
        "paper", description="Algorithm 3 of the paper, or what its two codes do"
    )


MOVES_STEPS = True


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig on a path without discrete steps, and for a window or a cutoff past its ends."""
    if diffusion.path != "vp":
        raise BadConfig(f"{where}: time-shift is for diffusion.path vp (it is {diffusion.path}).")
    if options.window >= diffusion.timesteps:
        raise BadConfig(
            f"{where}: a time-shift window of {options.window} is wider than the path, which has "
            f"{diffusion.timesteps} steps."
        )
    if options.cutoff > diffusion.timesteps:  # published cutoffs are for 1000 steps, and would do nothing here
        raise BadConfig(
            f"{where}: a time-shift cutoff of {options.cutoff} is past the path, which has {diffusion.timesteps} "
            "steps: no time would be shifted; scale a published cutoff by their number."
        )


class TimeShift:
    """The correction; it leaves predictions alone and moves steps. One for each batch of chains."""

    def __init__(self, options: Options, path: VPPath) -> None:
        self.options, self.path = options, path
        self.last: Step | None = None  # the planned step before this one

    def __call__(self, prediction: Prediction, step: Step) -> Prediction:
        return prediction

    def resume(self, before: Step) -> None:
        """The chain begins after this planned step, which others have made."""
        self.last = before

    def shift(self, step: Step, x: Tensor) -> Step:
        """The step with times of each image's own."""
        before, self.last = self.last, step
        if before is None:
            return step
        length = step.t - step.t_next
        if self.options.reading == "paper":
            if before.t <= self.options.cutoff:
                return step
            start = self.nearest(x, before.t)
            return self._moved(step, start, (start - length).clamp(min=1))
        if step.is_last or step.t_next <= self.options.cutoff:
            return step
        released = self.options.reading == "released"
        end = self.nearest(x, step.t_next) if released else self.nearest(x, step.t) - length
        return self._moved(step, None, end.clamp(1, step.t - 1))  # a step leads down, whatever the window [derived]

    def nearest(self, x: Tensor, middle: float) -> Tensor:
        """(B,): the time in the window around `middle` whose 1 - alpha_bar is nearest to the variance of each image."""
        import torch

        half = self.options.window // 2
        first, last = max(round(middle) - half, 1), min(round(middle) + half, self.path.timesteps)
        times = torch.arange(first, last + 1, device=x.device)
        levels = self.path.coefficients(times)[1] ** 2
        variance = x.flatten(1).var(1)
        return times[(variance[:, None] - levels).abs().argmin(1)].to(torch.float32)

    def _moved(self, step: Step, start: Tensor | None, end: Tensor) -> Step:
        """The step from `start` (or where it was planned) to `end`; the last one ends at clean data all the same."""
        changes: dict[str, Any] = {}
        if start is not None:
            a, s = self._levels(start)
            changes |= {"t": start, "a": a, "s": s}
        if not step.is_last:
            a, s = self._levels(end)
            changes |= {"t_next": end, "a_next": a, "s_next": s}
        return replace(step, **changes)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a, s = self.path.coefficients(t)
        return a[:, None, None, None], s[:, None, None, None]


def build(options: Options, path: GaussianPath, steps: int) -> TimeShift:
    """The correction for one batch of chains, on a path that `check` accepts."""
    return TimeShift(options, cast("VPPath", path))
