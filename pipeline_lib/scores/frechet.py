"""The Frechet distance between two Gaussians (Heusel et al., 2017, Eq. 6), in float64 from end to end."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import atomic


class Moments:
    """Count, mean (D,) and scatter (D,D) = sum (x - mean)(x - mean)^T of features, in float64.

    Blocks are joined by the pairwise update of Chan, Golub and LeVeque (1983): the mean is never subtracted from large
    sums, and moments of parts merge into those of the whole.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Take in a block (B,D) of any float type."""
        block = features.to(self.mean)
        mean = block.mean(0)
        centred = block - mean
        self._join(len(block), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> None:
        """Take in the moments of another part."""
        self._join(other.count, other.mean.to(self.mean), other.scatter.to(self.scatter))

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not count:
            return
        total = self.count + count
        gap = mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(gap, gap, alpha=self.count * count / total)
        self.mean += gap * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """(D,D), unbiased; raises ValueError below two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs two samples, there are {self.count}")
        return self.scatter / (self.count - 1)

    def save(self, path: Path) -> None:
        """Write count, mean and scatter as .npz, atomically; equal moments give equal bytes."""
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, count=self.count, mean=self.mean.cpu().numpy(), scatter=self.scatter.cpu().numpy())

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote, onto the CPU; raises BadData where it is not that."""
        try:
            with np.load(path) as file:
                moments = cls(len(file["mean"]))
                moments.count = int(file["count"])
                moments.mean, moments.scatter = torch.from_numpy(file["mean"]), torch.from_numpy(file["scatter"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise BadData(f"{path} does not hold feature moments ({error}); delete it and run again.") from None
        return moments


def root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance (D,D); eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def distance(reference: Moments, sample: Moments, reference_root: Tensor | None = None) -> float:
    """|m_r - m_g|^2 + tr(S_r + S_g) - 2 tr(S_r^(1/2) S_g S_r^(1/2))^(1/2).

    S_r S_g has the same eigenvalues as this symmetric product, for which the fast and stable symmetric solver serves;
    `reference_root` spares computing S_r^(1/2) again.
    """
    s_r, s_g = reference.covariance.cpu(), sample.covariance.cpu()
    half = root(s_r) if reference_root is None else reference_root
    product = half @ s_g @ half
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    gap = reference.mean.cpu() - sample.mean.cpu()
    return float(gap @ gap + s_r.trace() + s_g.trace() - 2 * shared)
