"""Gaussian mixtures as data: forward marginals and posterior moments in closed form, in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(mean_k, U_k diag(values_k) U_k^T): weights (K,), means (K,D), values (K,D), vectors (K,D,D)."""

    weights: Tensor
    means: Tensor
    values: Tensor
    vectors: Tensor

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def covariances(self) -> Tensor:
        """(K, D, D)."""
        return self.vectors * self.values[:, None] @ self.vectors.mT

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of the whole."""
        mean = self.weights @ self.means
        spread = self.means - mean
        return mean, torch.einsum("k,kij->ij", self.weights, self.covariances()) + (spread.T * self.weights) @ spread

    def sample(self, noise: Noise, count: int) -> Tensor:
        """(count, D), keyed by the noise's seed and the sample's number."""
        index = torch.arange(count)
        u = noise.uniform(Stream.LABEL, index, 0).double()
        chosen = torch.searchsorted(self.weights.cumsum(0), u).clamp(max=len(self.weights) - 1)
        z = noise.normal(Stream.NOISE, index, 0, (self.dimension,)).double() * self.values[chosen].sqrt()
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.vectors[chosen], z)

    def noised(self, a: float, s: float) -> "Mixture":
        """The law of a x_0 + s eps."""
        return Mixture(self.weights, a * self.means, a**2 * self.values + s**2, self.vectors)

    def log_density(self, x: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        return torch.logsumexp(self._log_joint(x)[0], dim=1)

    def posterior_mean(self, x: Tensor, a: float, s: float) -> Tensor:
        """E[x_0 | a x_0 + s eps = x] (N, D) for x (N, D) and s > 0."""
        share, means = self._posterior_means(x, a, s)
        return torch.einsum("nk,nki->ni", share, means)

    def posterior(self, x: Tensor, a: float, s: float) -> tuple[Tensor, Tensor]:
        """Mean (N, D) and covariance (N, D, D) of x_0 given a x_0 + s eps = x (N, D), for s > 0."""
        share, means = self._posterior_means(x, a, s)
        mean = torch.einsum("nk,nki->ni", share, means)
        left = self.values * s**2 / (a**2 * self.values + s**2)
        within = self.vectors * left[:, None] @ self.vectors.mT
        spread = means - mean[:, None]
        covariance = torch.einsum("nk,kij->nij", share, within)
        return mean, covariance + torch.einsum("nk,nki,nkj->nij", share, spread, spread)

    def _posterior_means(self, x: Tensor, a: float, s: float) -> tuple[Tensor, Tensor]:
        """The posterior share of each component (N, K) and its posterior mean (N, K, D)."""
        marginal = self.noised(a, s)
        joint, rotated = marginal._log_joint(x)
        gain = a * self.values / marginal.values
        means = self.means + torch.einsum("kij,nkj->nki", self.vectors, gain * rotated)
        return torch.softmax(joint, dim=1), means

    def _log_joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ln(w_k N_k(x)) (N, K), and x - mean_k in the eigenbasis of component k (N, K, D)."""
        rotated = torch.einsum("kij,nki->nkj", self.vectors, x[:, None] - self.means)
        quadratic = (rotated.square() / self.values).sum(-1)
        constant = self.values.log().sum(-1) + self.dimension * torch.log(torch.tensor(2 * torch.pi))
        return self.weights.log() - 0.5 * (quadratic + constant), rotated


def mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> Mixture:
    """From weights (K,), means (K, D) and covariances (K, D, D).

    Raises BadConfig where weights do not sum to 1 or a covariance is not symmetric and positive.
    """
    weights, means, covariances = (torch.as_tensor(v, dtype=torch.float64) for v in (weights, means, covariances))
    if (weights <= 0).any() or abs(float(weights.sum()) - 1) > 1e-9:
        raise BadConfig("the weights of a mixture must be positive and sum to 1.")
    if not torch.allclose(covariances, covariances.mT):
        raise BadConfig("a covariance of the mixture is not symmetric.")
    values, vectors = torch.linalg.eigh(covariances)
    if (values <= 0).any():
        raise BadConfig(f"a covariance of the mixture is not positive: its smallest eigenvalue is {values.min():.3g}.")
    return Mixture(weights, means, values, vectors)


def gaussian(mean: Tensor, covariance: Tensor) -> Mixture:
    """A single Gaussian, from mean (D,) and covariance (D, D)."""
    return mixture(torch.ones(1), torch.as_tensor(mean)[None], torch.as_tensor(covariance)[None])
