"""Sample grids while training."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.config.models import Sampling
from pipeline_lib.data.grid import save_grid
from pipeline_lib.data.prepared import to_uint8
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.diffusion.paths import VPPath
from pipeline_lib.samplers._stage import draw
from pipeline_lib.training.batches import Batches

IMAGES, CALLS = 36, 50
HEUN_CALLS = 35  # of EDM on CIFAR-10
Decode = Callable[[Tensor], Tensor]  # samples of the network -> uint8 images


def save_samples(denoiser: Denoiser, batches: Batches, path: Path, decode: Decode = to_uint8) -> None:
    """A grid of samples, always from the same noise: ancestral ones on a vp path, else those of Heun's method. Labels,
    if any, are those of the first batch."""
    on = denoiser.path
    sampler, calls = ("ancestral", min(CALLS, on.timesteps)) if isinstance(on, VPPath) else ("edm", HEUN_CALLS)
    sampling = Sampling(sampler={"name": sampler}, nfe=[calls], images=IMAGES, clip_x0=batches.pixels)
    index = torch.arange(IMAGES, device=batches.device)
    first = batches.at(0)
    labels = None if first.labels is None else first.labels[torch.arange(IMAGES) % len(first.labels)]
    denoiser.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    x = draw(denoiser, sampling, calls, index, first.x0.shape[1:], IMAGES, labels)
    save_grid(decode(x).cpu().numpy(), path)
