"""The Frechet distance between two Gaussians (Heusel et al., 2017, Eq. 6), in float64 from end to end."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import atomic
from pipeline_lib.scores.estimates import Estimate

BLOCK = 4096
EXTRAPOLATED = 8  # samples a dimension from which the distance is linear in 1/N: see docs/scores.md


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

    @classmethod
    def given(cls, mean: Tensor, covariance: Tensor) -> "Moments":
        """Moments with just this mean (D,) and covariance (D,D), as published statistics have them; no true count."""
        moments = cls(len(mean))
        moments.count, moments.mean, moments.scatter = 2, mean.double(), covariance.double()
        return moments

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
    values, vectors = _eigen(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,), rising, and eigenvectors (D,D), by SciPy: at D = 2048 torch takes 3.5 times as long."""
    values, vectors = eigh(symmetric.numpy(), driver="evd", check_finite=False)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def distance(reference: Moments, sample: Moments, reference_root: Tensor | None = None) -> float:
    """|m_r - m_g|^2 + tr(S_r + S_g) - 2 tr(S_r^(1/2) S_g S_r^(1/2))^(1/2).

    S_r S_g has the same eigenvalues as this symmetric product, for which the fast and stable symmetric solver serves;
    `reference_root` spares computing S_r^(1/2) again.
    """
    s_r, s_g = reference.covariance.cpu(), sample.covariance.cpu()
    half = root(s_r) if reference_root is None else reference_root
    values = eigh(_product(half, s_g).numpy(), eigvals_only=True, driver="evd", check_finite=False)
    shared = torch.from_numpy(values).clamp(min=0).sqrt().sum()
    gap = reference.mean.cpu() - sample.mean.cpu()
    return float(gap @ gap + s_r.trace() + s_g.trace() - 2 * shared)


def _product(half: Tensor, s_g: Tensor) -> Tensor:
    """S_r^(1/2) S_g S_r^(1/2), symmetric to the last bit."""
    product = half @ s_g @ half
    return (product + product.T) / 2


def moments_of(features: Tensor) -> Moments:
    """Moments of features (N,D), in blocks."""
    moments = Moments(features.shape[1], features.device)
    for block in features.split(BLOCK):
        moments.add(block)
    return moments


def estimate(reference: Moments, features: Tensor, reference_root: Tensor | None = None) -> Estimate:
    """The distance of features (N,D) from the reference, with the influence of each sample.

    Its derivative in the sample's law G at mean m and covariance S: with T = S_r^(1/2) (S_r^(1/2) S S_r^(1/2))^(-1/2)
    S_r^(1/2), the map that carries N(0, S) to N(0, S_r), dF = 2 (m - m_r).dm + tr((1 - T) dS), and a sample x moves
    them by dm = x - m, dS = dm dm^T - S. Where N <= D the inverse is that on the samples' own span.
    """
    sample = moments_of(features)
    s_r, s_g = reference.covariance.cpu(), sample.covariance.cpu()
    half = root(s_r) if reference_root is None else reference_root
    values, vectors = _eigen(_product(half, s_g))
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    values, vectors = values[kept], vectors[:, kept]
    gap = sample.mean.cpu() - reference.mean.cpu()
    value = float(gap @ gap + s_r.trace() + s_g.trace() - 2 * values.sqrt().sum())
    forms = (2 * gap).to(sample.mean), (half @ vectors / values**0.25).to(sample.mean)
    shares = [_quadratic(block.double() - sample.mean, *forms) for block in features.split(BLOCK)]
    influence = torch.cat(shares).cpu()
    return Estimate(value, (influence - influence.mean()).numpy())


def _quadratic(centred: Tensor, slope: Tensor, carried: Tensor) -> Tensor:
    """slope.x + |x|^2 - x^T T x of centred samples (B,D), where T = carried carried^T."""
    return centred @ slope + centred.square().sum(1) - (centred @ carried).square().sum(1)


def extrapolated(reference: Moments, features: Tensor, reference_root: Tensor | None = None, seed: int = 0) -> Estimate:
    """The distance at infinitely many samples: it falls linearly in 1/N (Chong and Forsyth, 2020, Sec. 3).

    The line goes through the whole set and the mean over its two halves, in a seeded order. The mean over halves moves
    with the samples as the whole does, to first order, so the intercept has the influences of the whole and its
    standard error; more and smaller parts would bend the line. Raises ValueError for fewer than 8 D samples.
    """
    count, dim = features.shape
    if count < EXTRAPOLATED * dim:
        raise ValueError(f"{count} samples are fewer than {EXTRAPOLATED} times the {dim} feature dimensions")
    half = root(reference.covariance.cpu()) if reference_root is None else reference_root
    whole = estimate(reference, features, half)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(features.device)
    halves = [distance(reference, moments_of(features[part]), half) for part in order.tensor_split(2)]
    return Estimate(2 * whole.value - sum(halves) / 2, whole.influence)


def paired_difference(a: Tensor, b: Tensor, reference: Moments) -> Estimate:
    """Distance of features a (N,D) less that of b (N,D), whose rows i were drawn from the same random numbers."""
    half = root(reference.covariance.cpu())
    return estimate(reference, a, half) - estimate(reference, b, half)
