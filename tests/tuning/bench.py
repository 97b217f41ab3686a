"""Benches on data whose score is known: an affine denoiser whose eps may be a planted factor too large."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoising
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.tuning._bench import FIRST, Bench, Trials

SPREAD, SIDE = 0.25, 8  # variance of the data, side of its images
EULER, HEUN = {"name": "edm", "order": 1}, {"name": "edm", "order": 2}
PATH = paths.build(Diffusion(path="edm", prediction="edm"))


class Images:
    """Isotropic Gaussian data in the place of a prepared dataset."""

    labels = None

    def __init__(self, spread: float, count: int = 4000) -> None:
        self.spread, self.count = spread, count

    def __len__(self) -> int:
        return self.count

    def floats(self, index: slice, device: object) -> Tensor:
        draws = torch.randn(self.count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        return self.spread**0.5 * draws[index]


def exact(scale: float = 1.0, spread: float = SPREAD) -> Denoising:
    """The exact denoiser with its eps times `scale`."""
    denoiser = Oracle(PATH, gaussian(torch.zeros(SIDE**2), spread * torch.eye(SIDE**2)))
    return denoiser if scale == 1 else Erring(denoiser, scale=scale)


def frechet(images: int) -> Callable[[Iterable[Tensor]], float]:
    """Of isotropic Gaussians of mean 0: the squared difference of their standard deviations.

    The numbers from which the tuning chains begin are a few per mille off the standard normal ones; the reference is
    as far off, so that few chains do.
    """
    start = Noise(0).normal(Stream.PRIOR, torch.arange(FIRST, FIRST + images), 0, (1, SIDE, SIDE))
    wanted = SPREAD**0.5 * start.double().square().mean().sqrt()

    def distance(batches: Iterable[Tensor]) -> float:
        square = torch.cat([x.flatten(1).double().square().mean(1) for x in batches]).mean()
        return float((square.sqrt() - wanted) ** 2)

    return distance


def bench(denoiser: Denoising, nfe: int, folder: Path, images: int = 300, **more: Any) -> Bench:
    """A bench without clipping, whose sampler is Euler's unless another is given."""
    sampling = Sampling(**{"sampler": EULER, "nfe": [nfe], "clip_x0": False, **more})
    shape, trials = (1, SIDE, SIDE), Trials(folder / "trials.json")
    data = Images(SPREAD, images)
    return Bench(denoiser, sampling, nfe, shape, images, data, frechet(images), "FD (exact)", trials)
