"""Small datasets, and the exact denoiser of Gaussian data, behind the interfaces of the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest

SHAPE = (1, 4, 4)
MEAN, STD = 0.3, 0.2


class GaussianPosterior:
    """E[x_0 | x_t] for x_0 ~ N(mean, std^2 I), in closed form; counts and remembers its calls."""

    def __init__(self, path: paths.GaussianPath, mean: float = MEAN, std: float = STD) -> None:
        self.path, self.mean, self.std = path, mean, std
        self.inputs: list[tuple[float, torch.Tensor]] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor | float, labels: torch.Tensor | None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        self.inputs.append((float(t[0]), x))
        a, s = (c.reshape(-1, 1, 1, 1) for c in self.path.coefficients(t))
        gain = a * self.std**2 / (a**2 * self.std**2 + s**2)
        return Prediction(x, a, s, self.mean + gain * (x - a * self.mean), "x0")


@pytest.fixture
def denoiser() -> GaussianPosterior:
    """On the linear path of 1000 steps."""
    return GaussianPosterior(paths.build(Diffusion(schedule="linear", timesteps=1000)))


@pytest.fixture
def sampling() -> Callable[..., Sampling]:
    """Ancestral sampling without clipping."""

    def make(nfe: int, seed: int = 0) -> Sampling:
        sampler = {"name": "ancestral", "variance": "fixed-small"}
        return Sampling(sampler=sampler, nfe=[nfe], images=2, clip_x0=False, seed=seed)

    return make


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[[np.ndarray], Prepared]:
    """Makes a prepared dataset of uint8 images (N,C,H,W)."""

    def make(images: np.ndarray) -> Prepared:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        np.save(folder / "train-images.npy", images)
        files = {"train-images.npy": sha256(folder / "train-images.npy")}
        return Prepared(Manifest("data", "0" * 64, str(folder), files, {"classes": [], "count": len(images)}))

    return make


@pytest.fixture
def gaussian_data(dataset: Callable[[np.ndarray], Prepared]) -> Prepared:
    """600 images of independent Gaussian pixels, of the law that `denoiser` knows."""
    pixels = np.random.default_rng(0).normal(MEAN, STD, (600, *SHAPE))
    return dataset(np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8))
