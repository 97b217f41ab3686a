"""Exact denoisers behind the ordinary interface, and denoisers that err in a controlled way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.analytic.mixtures import Mixture
from pipeline_lib.diffusion.denoiser import Denoising, Prediction
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.paths import GaussianPath
from pipeline_lib.exits import BadConfig


class Oracle:
    """The posterior mean of x_0 given x_t for data from a mixture: the optimum of every denoising loss."""

    def __init__(self, path: GaussianPath, data: Mixture) -> None:
        self.path, self.data = path, data

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        """x (B, *shape) with D pixels in all; t must be the same for all of the batch or (B,)."""
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        a, s = (c.double() for c in self.path.coefficients(t))
        flat, mean = x.flatten(1).double(), torch.empty(len(x), self.data.dimension, dtype=torch.float64)
        for value in t.unique():  # a batch in training holds many t, a sampler's only one
            rows = t == value
            first = int(rows.nonzero()[0])
            mean[rows] = self.data.posterior(flat[rows], float(a[first]), float(s[first]))[0]
        shape = (-1, *[1] * (x.ndim - 1))
        return Prediction(x, a.reshape(shape).to(x), s.reshape(shape).to(x), mean.reshape(x.shape).to(x), "x0")

    def transition_covariance(self, x: Tensor, step: Step) -> Tensor:
        """Covariance (B, D, D) of q(x_u | x_t) for the step's u < t: what a perfect reverse variance would be."""
        covariance = self.data.posterior(x.flatten(1).double(), step.a, step.s)[1]
        return step.posterior_variance * torch.eye(self.data.dimension) + step.c_x0**2 * covariance


@dataclass(frozen=True)
class Erring:
    """A denoiser whose eps is scaled and shifted for t in [low, high]; elsewhere it is the one inside."""

    inside: Denoising
    bias: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = float("inf")

    def __post_init__(self) -> None:
        end = getattr(self.path, "timesteps", None)
        if self.low > self.high or (end is not None and self.low > end):
            raise BadConfig(f"the window [{self.low:g}, {self.high:g}] holds no t of the path (T is {end}).")

    @property
    def path(self) -> GaussianPath:
        return self.inside.path

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        exact = self.inside(x, t, labels)
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        erring = (t >= self.low) & (t <= self.high)
        return exact.with_eps(torch.where(erring, self.scale * exact.eps + self.bias, exact.eps))
