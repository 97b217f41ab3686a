"""Training objectives, one file each, found by looking.

A file defines `Options` (a pydantic model), optionally `PRESETS` (name -> partial run configuration) and
`build(options) -> Objective`, and optionally `check(options, run, where)`, which raises BadConfig (its sentence begins
with `where`) where the options do not fit the rest of the run, and `network_calls(options, run) -> float`, the mean
number of images that go through the network for one training image, which the costs are compared with. Where training
gives the network something else than q(x_t), `depths` or `input_noise` says what (`errors.training_inputs`). With
`NEEDS_PIXELS` it is refused on latents. Where `whole_batch(options)` is true a term compares all images of a batch,
which is then never split. The file is imported when the Snakefile is parsed: import torch inside functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.noise import Noise
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.diffusion.streams import Stream


@dataclass(frozen=True)
class Batch:
    """The images of one optimiser step (or this device's part of them) and their random numbers.

    x0 (B,C,H,W) in [-1, 1]; labels (B,) or None; index (B,): place in the global batch, which keys all draws;
    group: images that share one t, contiguous and never split over devices or micro-batches, or None; step: a number,
    or a tensor (1,) where the step is being recorded to be replayed; plan: what the objective planned for it.
    """

    x0: Tensor
    labels: Tensor | None
    index: Tensor
    step: int | Tensor
    group: int | None
    noise: Noise
    plan: Hashable = None

    def normal(self, stream: Stream, sub: int = 0) -> Tensor:
        """Standard normal numbers of the shape of x0."""
        return self.noise.normal(stream, self.index, self.step, self.x0.shape[1:], sub)

    def eps(self, path: GaussianPath, stream: Stream) -> Tensor:
        """Noise of the path's own law, of the shape of x0."""
        return path.eps(self.noise, stream, self.index, self.step, self.x0.shape[1:])

    def uniform(self, stream: Stream, sub: int = 0) -> Tensor:
        """(B,) numbers in (0, 1)."""
        return self.noise.uniform(stream, self.index, self.step, sub=sub)

    def group_uniform(self, stream: Stream, sub: int = 0) -> Tensor:
        """(G,) numbers in (0, 1), one for each group of images."""
        assert self.group, "this objective needs training.mmd_group"
        return self.noise.uniform(stream, self.index[:: self.group] // self.group, self.step, sub=sub)


class Objective(Protocol):
    """Named terms of a loss. The loop averages each over its samples or groups, weights, sums and differentiates.

    An objective that remembers something between steps has `seen() -> Tensor | None`, rows (B, k) that tell of the
    images of the last call, and `remember(rows)`, called once a step with those of the global batch in its order: the
    parts of a batch may be computed one after the other, or on several devices. Its `state() -> dict[str, Tensor]` and
    `load(state)` go into the checkpoint and back. Where `full_float32` is true, gradients too are without TF32.

    An objective whose operations do not depend on values of the batch has `plan(path, batch) -> Hashable`: a GPU then
    records a step once for each plan, and replays it, which spares the time to launch every operation. `plan` is given
    the batch with its random numbers on the host and without images; `terms` finds what it returned in `batch.plan`,
    and must run the same operations, on other numbers, whenever that is the same. Nothing in `terms` may then wait for
    the device or copy to it, and what it keeps between steps must be changed in place.
    """

    weights: Mapping[str, float]

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """Each term per sample (B,) or per group (G,), not averaged: time sampling by loss needs it so."""
