"""Known answers for any objective: affine denoisers on Gaussian data, whose optimum and expected loss are exact.

An objective is right when its expected terms equal their closed form, when its gradient vanishes at its own optimum
(the exact denoiser for DDPM; another one for a method that moves it), and when training ends there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.analytic.mixtures import Mixture
from pipeline_lib.diffusion.denoiser import Kind, Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import VPPath
from pipeline_lib.objectives import Batch, Objective


class Affine(nn.Module):
    """A denoiser whose output at t is gain[t] x + offset[t]: gain (T + 1, D, D), offset (T + 1, D), both trained.

    Its variance lies at fraction[t] (T + 1, D) between beta~_t and beta_t, trained as well; 1/2 unless set.
    """

    def __init__(self, path: VPPath, kind: Kind, dimension: int) -> None:
        super().__init__()
        self.path, self.kind = path, kind
        self.gain = nn.Parameter(torch.zeros(path.timesteps + 1, dimension, dimension))
        self.offset = nn.Parameter(torch.zeros(path.timesteps + 1, dimension))
        self.fraction = nn.Parameter(torch.full((path.timesteps + 1, dimension), 0.5))

    def forward(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        a, s = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in self.path.coefficients(t))
        place = t.long()
        output = torch.einsum("nij,nj->ni", self.gain[place], x.flatten(1)) + self.offset[place]
        return Prediction(x, a, s, output.reshape(x.shape), self.kind, self.fraction[place].reshape(x.shape))


@dataclass(frozen=True)
class Problem:
    """Gaussian data (one component) on a VP path, seen through a parametrisation.

    Its losses and their optimum are those of input perturbation where `gamma` is above 0: x_t then stands for
    a x_0 + s (eps + gamma xi), and eps is what it is without xi.
    """

    path: VPPath
    data: Mixture
    kind: Kind
    gamma: float = 0.0

    def law(self, t: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and covariance of x_t, and those of the target with it: mean (D,), cov(target, x_t) (D, D)."""
        a, s = float(self.path.alpha_bar[t] ** 0.5), float((1 - self.path.alpha_bar[t]) ** 0.5)
        mean, covariance = self.data.moments()
        eye = torch.eye(len(mean), dtype=torch.float64)
        from_x0, from_eps = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-s, a)}[self.kind]  # target = . x_0 + . eps
        cross = from_x0 * a * covariance + from_eps * s * eye
        return a * mean, a**2 * covariance + s**2 * (1 + self.gamma**2) * eye, from_x0 * mean, cross

    def target_covariance(self, t: int) -> Tensor:
        """Covariance (D, D) of the target itself."""
        a, s = float(self.path.alpha_bar[t] ** 0.5), float((1 - self.path.alpha_bar[t]) ** 0.5)
        covariance = self.data.moments()[1]
        from_x0, from_eps = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-s, a)}[self.kind]
        return from_x0**2 * covariance + from_eps**2 * torch.eye(len(covariance), dtype=torch.float64)

    def optimum(self) -> Affine:
        """The regression of the target on x_t at every t: the exact denoiser where nothing is perturbed."""
        affine = Affine(self.path, self.kind, self.data.dimension)
        with torch.no_grad():
            for t in range(1, self.path.timesteps + 1):
                mean, covariance, target, cross = self.law(t)
                gain = torch.linalg.solve(covariance, cross.T).T
                affine.gain[t], affine.offset[t] = gain, target - gain @ mean
        return affine

    def simple_loss(self, affine: Affine) -> float:
        """E |target - output|^2 / D over t uniform in {1..T}, in closed form: the simple loss of DDPM."""
        total = 0.0
        for t in range(1, self.path.timesteps + 1):
            mean, covariance, target, cross = self.law(t)
            gain, offset = affine.gain[t].detach().double(), affine.offset[t].detach().double()
            spread = self.target_covariance(t) - gain @ cross.T - cross @ gain.T + gain @ covariance @ gain.T
            total += float(spread.trace() + (target - gain @ mean - offset).square().sum())
        return total / (self.path.timesteps * self.data.dimension)

    def batch(self, count: int, step: int, seed: int = 0, group: int | None = None) -> Batch:
        """`count` images (D, 1, 1) of the data, other ones at each step."""
        x0 = self.data.sample(Noise(seed + 1_000_003 * (step + 1)), count).float()
        return Batch(x0[:, :, None, None], None, torch.arange(count), step, group, Noise(seed))


def loss(objective: Objective, denoiser: Affine, batch: Batch) -> Tensor:
    """The weighted sum of the means of all terms, as the training loop forms it."""
    terms = objective.terms(denoiser, batch)
    seen = objective.seen() if hasattr(objective, "seen") else None
    if seen is not None and hasattr(objective, "remember"):
        objective.remember(seen)
    return torch.stack([objective.weights[name] * values.mean() for name, values in terms.items()]).sum()


def expected_loss(objective: Objective, affine: Affine, problem: Problem, batches: int = 20) -> tuple[float, float]:
    """Mean of the loss over batches of 2,000 images, and its standard error."""
    with torch.no_grad():
        values = torch.stack([loss(objective, affine, problem.batch(2000, i)) for i in range(batches)]).double()
    return float(values.mean()), float(values.std() / batches**0.5)


def gradient_scores(objective: Objective, affine: Affine, problem: Problem, batches: int = 40) -> Tensor:
    """Mean of the gradient in units of its standard error, for every weight that is used: N(0, 1) at an optimum."""
    gradients = []
    for i in range(batches):
        affine.zero_grad()
        loss(objective, affine, problem.batch(1000, i)).backward()
        assert affine.gain.grad is not None
        assert affine.offset.grad is not None
        gradients.append(torch.cat((affine.gain.grad[1:].flatten(), affine.offset.grad[1:].flatten())).double())
    stacked = torch.stack(gradients)
    return stacked.mean(0) / (stacked.std(0) / batches**0.5)


def fit(objective: Objective, problem: Problem, steps: int = 1000, lr: float = 0.05) -> Affine:
    """An affine denoiser trained from zero by Adam with a rate that falls to zero."""
    affine = Affine(problem.path, problem.kind, problem.data.dimension)
    adam = torch.optim.Adam(affine.parameters(), lr=lr)
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        adam.zero_grad()
        loss(objective, affine, problem.batch(500, step)).backward()
        adam.step()
    return affine
