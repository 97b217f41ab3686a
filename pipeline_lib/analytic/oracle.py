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
            mean[rows] = self.data.posterior_mean(flat[rows], float(a[first]), float(s[first]))
        shape = (-1, *[1] * (x.ndim - 1))
        return Prediction(x, a.reshape(shape).to(x), s.reshape(shape).to(x), mean.reshape(x.shape).to(x), "x0")

    def transition_covariance(self, x: Tensor, step: Step) -> Tensor:
        """Covariance (B, D, D) of q(x_u | x_t) for the step's u < t: what a perfect reverse variance would be.

        (1, D, D) where the data are a single Gaussian, since it does not depend on x_t then.
        """
        seen = x[:1] if len(self.data.weights) == 1 else x
        covariance = self.data.posterior(seen.flatten(1).double(), step.a, step.s)[1]
        return step.posterior_variance * torch.eye(self.data.dimension) + step.c_x0**2 * covariance


@dataclass(frozen=True)
class Erring:
    """A denoiser that errs for t in [low, high] and is the one inside elsewhere: its eps is scaled and shifted, then
    its x_0 is pulled towards `centre` (D,) or a number, by the share `pull`, which makes the chain contract."""

    inside: Denoising
    bias: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = float("inf")
    pull: float = 0.0
    centre: Tensor | float = 0.0

    def __post_init__(self) -> None:
        end = getattr(self.path, "timesteps", self.path.prior_std)
        if self.low > self.high or self.low > end:
            raise BadConfig(f"the window [{self.low:g}, {self.high:g}] holds no t of the path (its end is {end:g}).")

    @property
    def path(self) -> GaussianPath:
        return self.inside.path

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        exact = self.inside(x, t, labels)
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        wrong = exact.with_eps(self.scale * exact.eps + self.bias).x0
        centre = torch.as_tensor(self.centre, dtype=x.dtype).expand(wrong[0].numel()).reshape(wrong[0].shape)
        wrong = wrong + self.pull * (centre - wrong)
        return exact.with_x0(torch.where((t >= self.low) & (t <= self.high), wrong, exact.x0))
