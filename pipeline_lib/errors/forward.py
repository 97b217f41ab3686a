"""Forward samples x_t = a x_0 + s eps that sampled chains are measured against."""

from math import sqrt
from typing import Protocol

import torch
from torch import Tensor

from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import Gaussian, GaussianPath
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig

MEASURED, BANDWIDTHS = 0, 1  # the two sets that are drawn from one dataset and seed; part of the random counter


class ForwardLaw(Protocol):
    """What sampled x_t are measured against: M samples of a law of x_t, each with the same randomness at every t."""

    name: str

    def on(self, grid: Grid, place: int) -> Tensor | None:
        """x_t (M,C,H,W), float32, at a place in the grid; None where the law has none."""


class ForwardSamples:
    """The marginal q(x_t): M training images, drawn without replacement, each with one eps that it keeps at every t.

    So curves are smooth in t, and all methods with one law of eps are measured against the same samples: that of
    `path`, or standard normal. Raises BadConfig where the dataset has fewer than `count` images.
    """

    name = "marginal"

    def __init__(
        self,
        data: Prepared,
        count: int,
        seed: int,
        purpose: int,
        device: torch.device | str = "cpu",
        path: GaussianPath | None = None,
    ) -> None:
        check_count(count, len(data))
        chosen = Noise(seed).permutation(Stream.FORWARD, len(data), purpose)[:count].numpy()
        self.x0 = data.floats(chosen, device)
        self.labels = None if data.labels is None else torch.from_numpy(data.labels[chosen]).to(self.x0.device)
        index = torch.arange(count, device=self.x0.device)
        noise = Noise(seed, self.x0.device)
        eps = path.eps if path else Gaussian().eps
        self.eps = eps(noise, Stream.FORWARD, index, purpose, data.shape, sub=1)  # sub 0 drew the permutation

    def at(self, a: float, s: float) -> Tensor:
        """x_t (M,C,H,W), float32."""
        return a * self.x0 + s * self.eps

    def on(self, grid: Grid, place: int) -> Tensor:
        """x_t (M,C,H,W), float32, at a place in the grid."""
        return self.at(grid.a[place], grid.s[place])


def check_count(count: int, images: int) -> None:
    """Raise BadConfig where the dataset has fewer training images than forward samples are asked for."""
    if count > images:
        raise BadConfig(
            f"{count} forward samples are asked for (errors.forward, or errors.chains where that is null), but the "
            f"dataset has {images} training images; ask for at most so many."
        )


def normalise(x: Tensor, a: float, s: float, sigma_data2: float) -> Tensor:
    """x_t (B,C,H,W) -> (B,d), divided by its root mean square, so that one kernel suits every t and path."""
    return x.flatten(1) / sqrt(a**2 * sigma_data2 + s**2)
