"""The law of what the network is given at t while it trains (Li and van der Schaar, 2024, forward samples of Fig. 3).

An objective that feeds the model its own samples trains on a mixture: x_t of the forward process, and x_t that some
reverse steps of the model have made. It defines `depths(options, timesteps, batch_size, group)`, expected network calls
at each t by number of reverse steps, and has `variance`, and where rollouts may begin with N(0, I) `warm_start`, among
its options. One that perturbs its inputs defines `input_noise(options)`, the standard deviation of eps in them. One
with neither trains on q(x_t) alone: its law is the marginal one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config.base import load_part
from pipeline_lib.diffusion.denoiser import Denoising, perturb
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import VPPath
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.diffusion.transitions import VARIANCES, Transitions, Variance, rollout
from pipeline_lib.errors.forward import MEASURED, ForwardLaw, ForwardSamples


def of_run(
    facts: Mapping[str, Any], forward: ForwardSamples, denoiser: Denoising, seed: int, batch: int
) -> "ForwardLaw | None":
    """The law of a trained run from what its weights say of themselves; None where it is q(x_t), and on paths without
    discrete steps."""
    run = facts["run"]
    module, options = load_part("objectives", run["objective"])
    if hasattr(module, "input_noise") and (std := module.input_noise(options)) != 1:
        return NoisierInputs(forward, std)
    if not hasattr(module, "depths") or run["diffusion"]["path"] != "vp":
        return None
    timesteps, size = run["diffusion"]["timesteps"], run["training"]["batch_size"]
    calls = module.depths(options, timesteps, size, run["training"]["mmd_group"])
    warm_start = getattr(options, "warm_start", True)
    forward_calls = calls[1:, 0] if warm_start else np.full(timesteps, size / timesteps)
    return TrainingInputs(
        shares(calls, forward_calls),
        forward,
        denoiser,
        VARIANCES[options.variance],
        seed,
        batch,
        warm_start,
        run["network"]["conditional"],
    )


def shares(calls: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Shares (T + 1, 1 + J) of the inputs at t, from expected calls (T + 1, J) by number of reverse steps.

    Column 0 is q(x_t), for which `forward` (T,) of the calls at t in {1..T} are made; column 1 + j are rollouts of j
    steps (none from noised images at j = 0: they are q(x_t)). Row 0 is zero: the network is never called at t = 0.
    """
    split = np.concatenate((np.zeros((len(calls), 1)), calls), axis=1)
    split[1:, 0] = forward
    split[1:, 1] -= forward
    total = split.sum(1, keepdims=True)
    return np.divide(split, total, out=np.zeros_like(split), where=total > 0)


class NoisierInputs:
    """a x_0 + s std eps: forward samples, with the same images and eps, whose noise has another standard deviation."""

    name = "training-inputs"

    def __init__(self, forward: ForwardSamples, std: float) -> None:
        self.forward, self.std = forward, std

    def on(self, grid: Grid, place: int) -> Tensor | None:
        """x_t (M,C,H,W), float32, at a place in the grid; None at t = 0."""
        return self.forward.at(grid.a[place], self.std * grid.s[place]) if grid.s[place] else None


class TrainingInputs:
    """Forward sample i, taken through as many reverse steps as its place in the mixture of inputs at t asks for.

    It keeps its image, eps, place (a uniform number) and noise of the reverse steps at every t, so that curves are
    smooth in t and differ from those of `forward` only by what the model does to its samples.
    """

    name = "training-inputs"

    def __init__(
        self,
        shares: np.ndarray,
        forward: ForwardSamples,
        denoiser: Denoising,
        variance: Variance,
        seed: int,
        batch: int,
        warm_start: bool = True,
        conditional: bool = False,
    ) -> None:
        """Shares (T + 1, 1 + J) as from `shares`; `variance` is the training's; network calls have at most `batch`
        images. Without warm start, rollouts begin with N(0, I)."""
        assert isinstance(denoiser.path, VPPath), "rollouts need a path of discrete steps"
        self.forward, self.denoiser, self.path, self.batch = forward, denoiser, denoiser.path, batch
        self.labels, self.warm_start = forward.labels if conditional else None, warm_start
        self.transitions = Transitions(self.path, variance)
        self.cumulated = torch.from_numpy(shares.cumsum(1)).to(forward.x0.device)
        self.noise = Noise(seed, forward.x0.device)
        index = torch.arange(len(forward.x0), device=forward.x0.device)
        self.place = self.noise.uniform(Stream.TRAINING_INPUTS, index, MEASURED).double()

    def components(self, t: int) -> Tensor:
        """Columns of `shares` (M,) that the samples are in at t > 0."""
        return torch.searchsorted(self.cumulated[t], self.place)

    def on(self, grid: Grid, place: int) -> Tensor | None:
        """x_t (M,C,H,W), float32, at a place in the grid; None at t = 0."""
        t, x = round(grid.times[place]), self.forward.on(grid, place)
        if self.cumulated[t, -1] == 0:
            return None
        steps = self.components(t) - 1
        rolled = (steps >= 0).nonzero().squeeze(1)
        for i in range(0, len(rolled), self.batch):
            rows = rolled[i : i + self.batch]
            x[rows] = self._rolled(rows, t, steps[rows])
        return x

    @torch.no_grad()
    def _rolled(self, rows: Tensor, t: int, steps: Tensor) -> Tensor:
        x0, eps = self.forward.x0[rows], self.forward.eps[rows]
        start = perturb(self.path, x0, t + steps, eps) if self.warm_start else self.path.prior_std * eps

        def normal(chosen: Tensor, left: int) -> Tensor:  # sub 0 drew the places
            return self.noise.normal(Stream.TRAINING_INPUTS, rows[chosen], MEASURED, x0.shape[1:], left)

        labels = None if self.labels is None else self.labels[rows]
        return rollout(self.denoiser, start, t + steps, steps, self.transitions, normal, labels)
