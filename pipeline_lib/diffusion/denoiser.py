"""The denoiser: the one interface between networks (or exact posteriors) and everything that uses them."""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.diffusion.paths import GaussianPath

Kind = Literal["eps", "x0", "v"]


class Prediction:
    """What is predicted from x_t (B,C,H,W) in one parametrisation, readable in all: x0, eps, v = a eps - s x0."""

    def __init__(self, x: Tensor, a: Tensor, s: Tensor, output: Tensor, kind: Kind) -> None:
        """a and s broadcast against x."""
        self.x, self.a, self.s, self.output, self.kind = x, a, s, output, kind

    @property
    def x0(self) -> Tensor:
        if self.kind == "x0":
            return self.output
        if self.kind == "eps":
            return (self.x - self.s * self.output) / self.a
        return (self.a * self.x - self.s * self.output) / (self.a**2 + self.s**2)

    @property
    def eps(self) -> Tensor:
        if self.kind == "eps":
            return self.output
        if self.kind == "x0":
            return (self.x - self.a * self.output) / self.s
        return (self.s * self.x + self.a * self.output) / (self.a**2 + self.s**2)

    def target(self, x0: Tensor, eps: Tensor) -> Tensor:
        """What `output` should have been for x = a x0 + s eps."""
        if self.kind == "v":
            return self.a * eps - self.s * x0
        return eps if self.kind == "eps" else x0

    def with_x0(self, x0: Tensor) -> "Prediction":
        """The same x with another x_0; eps follows."""
        return Prediction(self.x, self.a, self.s, x0, "x0")

    def with_eps(self, eps: Tensor) -> "Prediction":
        """The same x with another eps; x_0 follows."""
        return Prediction(self.x, self.a, self.s, eps, "eps")


class Denoising(Protocol):
    """The interface: a path, and a prediction at x (B,C,H,W), t (B,) or a number, labels (B,) or None."""

    @property
    def path(self) -> GaussianPath: ...

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction: ...


class Denoiser(nn.Module):
    """A network made a denoiser: it is given x_t and the path's condition of t, and predicts eps, x0 or v."""

    def __init__(self, network: nn.Module, path: GaussianPath, kind: Kind) -> None:
        super().__init__()
        self.network, self.path, self.kind = network, path, kind

    def forward(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(x))
        a, s = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in self.path.coefficients(t))
        return Prediction(x, a, s, self.network(x, self.path.condition(t), labels), self.kind)


def perturb(path: GaussianPath, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = a_t x_0 + s_t eps for t (B,)."""
    a, s = (c.reshape(-1, *[1] * (x0.ndim - 1)) for c in path.coefficients(t))
    return a * x0 + s * eps
