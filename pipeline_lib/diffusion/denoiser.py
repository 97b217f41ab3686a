"""The denoiser: the one interface between networks (or exact posteriors) and everything that uses them."""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion.paths import GaussianPath

Kind = Literal["eps", "x0", "v"]


class Prediction:
    """What is predicted from x_t (B,C,H,W) in one parametrisation, readable in all: x0, eps, v = a eps - s x0."""

    def __init__(
        self, x: Tensor, a: Tensor, s: Tensor, output: Tensor, kind: Kind, fraction: Tensor | None = None
    ) -> None:
        """a and s broadcast against x. `fraction`, of the shape of x, is the place of a learned log variance between
        those of beta~ (0) and beta (1); not held to this range."""
        self.x, self.a, self.s, self.output, self.kind, self.fraction = x, a, s, output, kind, fraction

    def __getitem__(self, rows: slice) -> "Prediction":
        """That of some images, where a and s have a value for each."""
        fraction = None if self.fraction is None else self.fraction[rows]
        return Prediction(self.x[rows], self.a[rows], self.s[rows], self.output[rows], self.kind, fraction)

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
        return Prediction(self.x, self.a, self.s, x0, "x0", self.fraction)

    def with_eps(self, eps: Tensor) -> "Prediction":
        """The same x with another eps; x_0 follows."""
        return Prediction(self.x, self.a, self.s, eps, "eps", self.fraction)


class Split(Prediction):
    """A prediction whose x_0 and eps do not belong together: x_0 was corrected, eps was not."""

    def __init__(self, before: Prediction, x0: Tensor) -> None:
        super().__init__(before.x, before.a, before.s, before.output, before.kind, before.fraction)
        self._x0, self._eps = x0, before.eps

    @property
    def x0(self) -> Tensor:
        return self._x0

    @property
    def eps(self) -> Tensor:
        return self._eps

    def with_x0(self, x0: Tensor) -> "Prediction":
        """Another x_0; eps stays."""
        return Split(self, x0)


class Denoising(Protocol):
    """The interface: a path, and a prediction at x (B,C,H,W), t (B,) or a number, labels (B,) or None."""

    @property
    def path(self) -> GaussianPath: ...

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction: ...


class Denoiser(nn.Module):
    """A network made a denoiser: given x_t and the path's condition of t, its output is read as configured."""

    def __init__(self, network: nn.Module, path: GaussianPath, config: Diffusion, bf16: bool = False) -> None:
        """`bf16`: what autocast has for the network's operations, which is bfloat16 for most."""
        super().__init__()
        self.network, self.path, self.config, self.bf16 = network, path, config, bf16

    def forward(
        self, x: Tensor, t: Tensor | float, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Prediction:
        """`augment` (B, 9) tells a network that takes it how images were augmented; None, as when sampling: not."""
        if not isinstance(t, Tensor):
            t = torch.full((), float(t), device=x.device)
        t = t.to(x.device, torch.float32).expand(len(x))
        a, s = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in self.path.coefficients(t))
        given = (self.path.condition(t), labels, *(() if augment is None else (augment,)))
        if self.config.prediction == "edm":
            skip, out, scale = preconditioning(s, self.config.sigma_data)
            return Prediction(x, a, s, skip * x + out * self._output(scale * x, *given), "x0")
        output, fraction = self._output(x, *given), None
        if self.config.learned_variance:
            output, place = output.chunk(2, dim=1)
            fraction = (place + 1) / 2  # Nichol and Dhariwal (2021), Eq. 15, with the range of the released code
        return Prediction(x, a, s, output, self.config.prediction, fraction)

    def _output(self, x: Tensor, *given: Tensor | None) -> Tensor:
        if x.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self.bf16:
            return self.network(x, *given)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.network(x, *given).float()

    def log_probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        """ln p(y | x_t) (B, classes) for t (B,), where the network is a classifier of noisy images."""
        return self._output(x, self.path.condition(t)).log_softmax(1)


def preconditioning(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in of EDM (Karras et al., 2022, Table 1), of the shape of sigma."""
    total = (sigma**2 + sigma_data**2).sqrt()
    return sigma_data**2 / total**2, sigma * sigma_data / total, 1 / total


def perturb(path: GaussianPath, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = a_t x_0 + s_t eps for t (B,)."""
    a, s = (c.reshape(-1, *[1] * (x0.ndim - 1)) for c in path.coefficients(t))
    return a * x0 + s * eps
