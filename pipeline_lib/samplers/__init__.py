"""Samplers, one file each, found by looking, and the corrections that compose with them.

A file defines `Options` (a pydantic model) and a function `sample` with the signature of `Sampler`; optionally
`steps(options, nfe)`, the steps of a grid in which it makes `nfe` network calls (`nfe` where it is not defined; it
raises BadConfig where there are none), and `check(options, diffusion, where)`, which raises BadConfig (its sentence
begins with `where`) for a path that it cannot sample. `unknown(options)` names those of its options, each a number for
every visited t, that the rule `moments` must fill in with what it measures on as many training images as its option
`images` says. It is imported when the Snakefile is parsed: import torch inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.grid import Grid, Step
    from pipeline_lib.diffusion.noise import Noise

    Correction = Callable[[Prediction, Step], Prediction]
    Observer = Callable[[Step, Tensor, Prediction], None]


@dataclass(frozen=True)
class Draw:
    """The random numbers of a set of chains: index (B,) numbers them, whatever batch they are in."""

    noise: Noise
    index: Tensor

    def normal(self, stream: Any, step: int, shape: Sequence[int]) -> Tensor:
        """(B, *shape) standard normal numbers of this step."""
        return self.noise.normal(stream, self.index, step, shape)


class Sampler(Protocol):
    """From x_T (B,C,H,W) to x_0. `corrections` change each prediction in turn; `observe` sees every step."""

    def __call__(
        self,
        denoiser: Denoising,
        grid: Grid,
        x: Tensor,
        draw: Draw,
        options: Any,
        labels: Tensor | None = None,
        corrections: Sequence[Correction] = (),
        observe: Observer | None = None,
    ) -> Tensor: ...


def predict(
    denoiser: Denoising, x: Tensor, step: Step, labels: Tensor | None, corrections: Sequence[Correction]
) -> tuple[Prediction, Step]:
    """The prediction at x after all corrections in their order, and the step to make with it.

    A correction that has `shift(step, x) -> Step` may first move the step, each image's by its own: its fields are then
    tensors that broadcast against x, and its t is (B,).
    """
    for correct in corrections:
        if hasattr(correct, "shift"):
            step = correct.shift(step, x)
    prediction = denoiser(x, step.t, labels)
    for correct in corrections:
        prediction = correct(prediction, step)
    return prediction, step


def noise_variance(step: Step, own: float, chosen: float | Tensor, corrections: Sequence[Correction]) -> float | Tensor:
    """The variance of a step's noise: `chosen`, unless a correction has `noise(step, own)`, which then decides.

    `own` is the variance with which the step would keep q(x_u | x_0), if the predicted x_0 were right; so it tells with
    what weights x_0 and x_t enter the mean (Song et al., 2021, Eq. 7).
    """
    for correct in corrections:
        if hasattr(correct, "noise"):
            chosen = correct.noise(step, own)
    return chosen


def clip_x0(prediction: Prediction, step: Step) -> Prediction:
    """A correction: x_0 clipped to the range of images."""
    return prediction.with_x0(prediction.x0.clamp(-1, 1))
