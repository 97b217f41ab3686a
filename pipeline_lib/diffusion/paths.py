"""Gaussian paths x_t = a_t x_0 + s_t eps: they own the training draws and the sampling grid."""

from collections.abc import Callable, Sequence
from math import cos, exp, inf, log, pi
from typing import Protocol

import torch
from torch import Tensor

from pipeline_lib.config.models import Diffusion
from pipeline_lib.config.spacings import Spacing, visited
from pipeline_lib.diffusion.everywhere import Everywhere
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig

LARGEST_END = 1e-4  # alpha_bar_T above this leaves data in x_T, and error curves would show that instead


class GaussianPath(Protocol):
    """What objectives, samplers and measurements know of a path. t is in the path's own units, 0 is clean data."""

    prior_std: float

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t, float32, of the shape of t."""

    def condition(self, t: Tensor) -> Tensor:
        """What the network is given for t."""

    def draw_times(self, u: Tensor) -> Tensor:
        """Training times from uniform numbers in (0, 1), of the same shape."""

    def eps(
        self, noise: Noise, stream: Stream, index: Tensor, step: int | Tensor, shape: Sequence[int], sub: int = 0
    ) -> Tensor:
        """The noise of x_t = a_t x_0 + s_t eps, (B, *shape) float32; the arguments are those of `Noise.normal`."""

    def grid(self, nfe: int, spacing: Spacing = "uniform") -> Grid:
        """The sampling grid of `nfe` steps; raises BadConfig where the path has none."""


class Gaussian:
    """Paths with standard normal eps."""

    def eps(
        self, noise: Noise, stream: Stream, index: Tensor, step: int | Tensor, shape: Sequence[int], sub: int = 0
    ) -> Tensor:
        """Standard normal (B, *shape), float32."""
        return noise.normal(stream, index, step, shape, sub)


class VPPath(Gaussian):
    """The variance-preserving path of DDPM: t in {1..T}, a_t^2 = alpha_bar_t, s_t^2 = 1 - alpha_bar_t.

    Between the steps ln alpha_bar is linear in t: what a method that needs a continuous t reads.
    """

    prior_std = 1.0

    def __init__(self, alpha_bar: Tensor) -> None:
        """`alpha_bar` (T + 1,) float64, with alpha_bar[0] = 1."""
        self.alpha_bar = alpha_bar
        self.timesteps = len(alpha_bar) - 1
        self._table = Everywhere(torch.stack((alpha_bar.sqrt(), (1 - alpha_bar).sqrt())).to(torch.float32))
        self._log = Everywhere(alpha_bar.log())

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t, float32, of the shape of t; those of DDPM, to the bit, where t is an integer."""
        log_alpha_bar = self.log_alpha_bar(t)
        between = torch.stack(((log_alpha_bar / 2).exp(), (-log_alpha_bar.expm1()).sqrt())).to(torch.float32)
        known = (t == t.floor()) & (t <= self.timesteps)
        a, s = torch.where(known, self._table.on(t.device)[:, t.long().clamp(max=self.timesteps)], between)
        return a, s

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """ln alpha_bar at t >= 0, float64, of the shape of t; beyond T it goes on as within the last step."""
        before, after, place = self._around(t)
        return torch.lerp(before, after, t.double() - place)

    def rate(self, t: Tensor) -> Tensor:
        """beta = -T d ln alpha_bar / dt, float64, of the shape of t: g^2 of the SDE whose time runs from 0 to 1.

        Constant within a step; at an integer t it is that of the step above.
        """
        before, after, _ = self._around(t)
        return self.timesteps * (before - after)

    def _around(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln alpha_bar at both ends of the step that holds t, and its lower end."""
        place = t.long().clamp(max=self.timesteps - 1)
        log_alpha_bar = self._log.on(t.device)
        return log_alpha_bar[place], log_alpha_bar[place + 1], place

    def condition(self, t: Tensor) -> Tensor:
        """0-based t on the scale of the published 1000 steps, so that the embedding sees the same range at any T."""
        return (t - 1) * (1000 / self.timesteps)

    def draw_times(self, u: Tensor) -> Tensor:
        """t uniform in {1..T}."""
        return (u * self.timesteps).ceil().clamp(1, self.timesteps)

    def grid(self, nfe: int, spacing: Spacing = "uniform") -> Grid:
        """The grid of `spacings.visited`."""
        times = visited(spacing, self.timesteps, nfe)
        alpha_bar = [float(self.alpha_bar[t]) for t in [*times, 0]]
        return Grid(
            tuple(float(t) for t in [*times, 0]),
            tuple(x**0.5 for x in alpha_bar),
            tuple((1 - x) ** 0.5 for x in alpha_bar),
        )


class EDMPath(Gaussian):
    """The path of EDM (Karras et al., 2022): x = x_0 + sigma eps, with sigma itself as the time."""

    def __init__(self, config: Diffusion) -> None:
        self.prior_std = config.sigma_max
        self.config = config

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a = 1 and s = sigma, float32, of the shape of t."""
        t = t.to(torch.float32)
        return torch.ones_like(t), t

    def condition(self, t: Tensor) -> Tensor:
        """c_noise = ln(sigma) / 4 (Table 1)."""
        return t.log() / 4

    def draw_times(self, u: Tensor) -> Tensor:
        """ln sigma normal (Eq. 8 and Table 1)."""
        return torch.exp(self.config.log_sigma_mean + self.config.log_sigma_std * torch.special.ndtri(u))

    def grid(self, nfe: int, spacing: Spacing = "uniform") -> Grid:
        """Even steps in sigma^(1/rho) from sigma_max to sigma_min, then clean data (Eq. 5): `uniform` in that clock."""
        if spacing != "uniform":
            raise BadConfig(f"spacing '{spacing}' is for paths with integer t; an edm path has its own: say uniform.")
        if nfe < 1:
            raise BadConfig(f"nfe is {nfe}, but a grid has at least one step.")
        first, last = (x ** (1 / self.config.rho) for x in (self.config.sigma_max, self.config.sigma_min))
        times = [(first + i / max(nfe - 1, 1) * (last - first)) ** self.config.rho for i in range(nfe)] + [0.0]
        return Grid(tuple(times), (1.0,) * len(times), tuple(times))


class PFGMPath(EDMPath):
    """The path of PFGM++ (Xu et al., 2023): that of EDM with eps from a multivariate Student t distribution.

    Their x_0 + R u, with u uniform on the sphere of R^N, R = r (B / (1 - B))^(1/2), B ~ Beta(N/2, D/2) and
    r = sigma sqrt(D), is x_0 + sigma eps with eps = n sqrt(D / chi^2_D) and n standard normal: B / (1 - B) is a
    quotient of independent chi^2_N and chi^2_D, and |n|^2 is the chi^2_N. So the shape of the noise is the same at all
    sigma, and the limit of large D is EDM.
    """

    RADIUS = 1 << 16  # sub of the draws that make chi^2_D, apart from all that callers use

    def eps(
        self, noise: Noise, stream: Stream, index: Tensor, step: int | Tensor, shape: Sequence[int], sub: int = 0
    ) -> Tensor:
        """(B, *shape) float32, Student t with D degrees of freedom and unit scale, so of variance D / (D - 2)."""
        freedom = self.config.extra_dimensions
        normal = noise.normal(stream, index, step, shape, sub)
        chi2 = noise.normal(stream, index, step, (freedom,), self.RADIUS + sub).double().square().sum(1)
        return normal * (freedom / chi2).sqrt().to(normal).reshape(-1, *[1] * len(shape))


def _linear(timesteps: int) -> Tensor:
    """Ho et al. (2020): beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T elsewhere."""
    scale = 1000 / timesteps
    return torch.linspace(1e-4 * scale, 0.02 * scale, timesteps, dtype=torch.float64)


def _from_alpha_bar(function: Callable[[float], float], timesteps: int) -> Tensor:
    """beta_t = 1 - f(t / T) / f((t - 1) / T)."""
    values = torch.tensor([function(i / timesteps) for i in range(timesteps + 1)], dtype=torch.float64)
    return 1 - values[1:] / values[:-1]


def _cosine(timesteps: int) -> Tensor:
    """Nichol and Dhariwal (2021), Eq. 17, with their offset 0.008."""
    return _from_alpha_bar(lambda u: cos((u + 0.008) / 1.008 * pi / 2) ** 2, timesteps)


def _sigmoid(timesteps: int) -> Tensor:
    """Jabri et al. (2022), with start -3, end 3, temperature 1."""

    def logistic(u: float) -> float:
        return 1 / (1 + exp(-(6 * u - 3)))

    first, last = logistic(0), logistic(1)
    return _from_alpha_bar(lambda u: (last - logistic(u)) / (last - first), timesteps)


SCHEDULES = {"linear": _linear, "cosine": _cosine, "sigmoid": _sigmoid}


def build(config: Diffusion) -> GaussianPath:
    """The path of a configuration; raises BadConfig where x_T of a VP path would still hold data."""
    if config.path == "vp":
        return build_vp(config)
    return EDMPath(config) if config.path == "edm" else PFGMPath(config)


def build_vp(config: Diffusion) -> VPPath:
    """The VP path of a configuration; raises BadConfig where x_T would still hold data."""
    betas = SCHEDULES[config.schedule](config.timesteps).clamp(max=0.999)
    alpha_bar = torch.cat((torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)))
    if (end := float(alpha_bar[-1])) > LARGEST_END:
        raise BadConfig(
            f"alpha_bar_T is {end:.2g} with schedule {config.schedule} and T = {config.timesteps}: x_T would still "
            f"hold data (largest accepted: {LARGEST_END:.0e})."
        )
    return VPPath(alpha_bar)


def log_snr(a: float, s: float) -> float:
    """ln(a^2 / s^2): the schedule-free clock on which kernels and curves of different paths compare; inf at s = 0."""
    return 2 * log(a / s) if s else inf
