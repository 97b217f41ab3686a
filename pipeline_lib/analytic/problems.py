"""A problem of the configuration made ready: its data, path and grid, and its chains, exact and sampled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.mixtures import Mixture, gaussian, mixture
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Component, Imperfection, Problem, Setting
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoising
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.files import digest
from pipeline_lib.samplers import Draw, ancestral

if TYPE_CHECKING:
    from pipeline_lib.samplers import Observer

CHAINS, FORWARD, COMPARED, ESTIMATED, TRUE_CHAINS = range(5)  # independent draws


class Study:
    """Data, path and grid of a problem. Samples are (N, D, 1, 1), float32; laws are float64."""

    def __init__(self, problem: Problem, seed: int) -> None:
        """Raises BadConfig where the data are no mixture, or the path or grid cannot be."""
        self.key = {"seed": seed, "data": problem.model_dump(mode="json", exclude={"settings"})}
        self.data = build(problem.data)
        self.path = paths.build(problem.diffusion)
        self.grid = self.path.grid(problem.nfe)
        self.prior = exact.prior(self.path, self.data.dimension)

    def noise(self, purpose: int, setting: Setting | None = None) -> Noise:
        """Random numbers of one of the independent draws: other ones for each problem, and each setting given."""
        key = {**self.key, "purpose": purpose, "setting": setting and setting.model_dump(mode="json")}
        return Noise(int(digest(key)[:8], 16))

    def denoiser(self, setting: Setting) -> Denoising:
        """The imperfect denoiser behind the ordinary interface."""
        error = setting.error
        self._check_window(error)
        inside = Oracle(self.path, self.believed(error))
        high = inf if error.high is None else error.high
        return Erring(inside, error.bias, error.scale, error.low, high, error.pull, self.data.moments()[0])

    def linear(self, error: Imperfection) -> exact.Linear:
        """The same denoiser as gain and offset at each step. Raises BadConfig for data of several components."""
        if len(self.data.weights) > 1:
            raise BadConfig("exact errors need data of a single Gaussian; this problem has several components.")
        self._check_window(error)
        inside, centre = exact.exact_denoiser(self.believed(error)), self.data.moments()[0]
        wrong = exact.erring(inside, error.scale, error.bias)

        def at(step: Step) -> tuple[Tensor, Tensor]:
            if not _within(error, step.t):
                return inside(step)
            gain, offset = wrong(step)
            return (1 - error.pull) * gain, (1 - error.pull) * offset + error.pull * centre

        return at

    def _check_window(self, error: Imperfection) -> None:
        if not any(_within(error, t) for t in self.grid.times[:-1]):
            raise BadConfig(
                f"no step of the grid is in the window of the error, from {error.low:g} to "
                f"{'the end' if error.high is None else format(error.high, 'g')}: the grid goes from "
                f"{self.grid.times[0]:g} to {self.grid.times[-2]:g}."
            )

    def believed(self, error: Imperfection) -> Mixture:
        """The data as the denoiser knows them: exactly, or by mean and covariance of so many images."""
        if error.images is None:
            return self.data
        if error.images <= self.data.dimension:
            raise BadConfig(
                f"a covariance in {self.data.dimension} dimensions needs more than error.images = {error.images}."
            )
        x = self.data.sample(self.noise(ESTIMATED), error.images)
        return gaussian(x.mean(0), torch.cov(x.T))

    def variance(self, kind: str) -> exact.Covariance:
        """The reverse covariance of a setting."""
        return exact.oracle_variance(self.data) if kind == "oracle" else exact.fixed_variance(kind, self.data.dimension)

    def links(self, setting: Setting, grid: Grid | None = None, start: exact.Normal | None = None) -> list[exact.Link]:
        """Every step of the chain in closed form, from the prior unless `start` is given."""
        denoiser, variance = self.linear(setting.error), self.variance(setting.variance)
        return list(exact.chain(self.data, grid or self.grid, denoiser, variance, start or self.prior))

    def simulate(
        self, setting: Setting, x: Tensor, index: Tensor, grid: Grid | None = None, observe: Observer | None = None
    ) -> Tensor:
        """The chains number `index` sampled from x (N, D, 1, 1) at the top of the grid, by the suite's own sampler
        where the variance is one of its; `observe` sees every step."""
        denoiser, grid = self.denoiser(setting), grid or self.grid
        draw = Draw(self.noise(CHAINS, setting), index)
        if setting.variance != "oracle":
            options = ancestral.Options(variance=setting.variance)
            return ancestral.sample(denoiser, grid, x, draw, options, observe=observe)
        return oracle_chain(denoiser, self.data, grid, x, draw, observe)

    def true_chain(self, x: Tensor, index: Tensor, steps: int) -> Tensor:
        """The first steps from x (N, D, 1, 1) at the top of the grid, by the true score and reverse variance."""
        draw = Draw(self.noise(TRUE_CHAINS), index)
        return oracle_chain(Oracle(self.path, self.data), self.data, islice(self.grid, steps), x, draw)

    def start(self, setting: Setting, index: Tensor) -> Tensor:
        """x at the top of the grid from the prior."""
        shape = (self.data.dimension, 1, 1)
        return self.path.prior_std * self.noise(CHAINS, setting).normal(Stream.PRIOR, index, 0, shape)

    def forward(self, count: int, purpose: int = FORWARD, setting: Setting | None = None) -> tuple[Tensor, Tensor]:
        """x_0 and eps of `count` forward samples, each (count, D, 1, 1)."""
        noise = self.noise(purpose, setting)
        x0 = self.data.sample(noise, count).float()[:, :, None, None]
        return x0, noise.normal(Stream.FORWARD, torch.arange(count), 0, x0.shape[1:])


def _within(error: Imperfection, t: float) -> bool:
    return error.low <= t <= (inf if error.high is None else error.high)


def oracle_chain(
    denoiser: Denoising, data: Mixture, steps: Iterable[Step], x: Tensor, draw: Draw, observe: Observer | None = None
) -> Tensor:
    """Ancestral sampling with the exact covariance of q(x_u | x_t) at every step, the last included."""
    exact_covariance = Oracle(denoiser.path, data).transition_covariance
    for step in steps:
        prediction = denoiser(x, step.t)
        if observe:
            observe(step, x, prediction)
        root = torch.linalg.cholesky(exact_covariance(x, step)).to(x)
        z = draw.normal(Stream.REVERSE, step.index, x.shape[1:]).flatten(1)
        jump = torch.einsum("nij,nj->ni", root.expand(len(x), -1, -1), z)
        x = step.c_x0 * prediction.x0 + step.c_xt * x + jump.reshape(x.shape)
    return x


def build(components: Sequence[Component]) -> Mixture:
    """The mixture of a configuration; raises BadConfig where sizes do not fit or a covariance is not positive."""
    size = len(components[0].mean)
    covariances = [_matrix(one.covariance) for one in components]
    if any(len(c.mean) != size for c in components) or any(m.shape != (size, size) for m in covariances):
        raise BadConfig(
            f"the means and covariances of a mixture must all have the dimension of the first mean, {size}."
        )
    weights = torch.tensor([c.weight for c in components], dtype=torch.float64)
    return mixture(weights, torch.tensor([c.mean for c in components], dtype=torch.float64), torch.stack(covariances))


def _matrix(covariance: Sequence[float] | Sequence[list[float]]) -> Tensor:
    if len({len(row) for row in covariance if isinstance(row, list)}) > 1:
        raise BadConfig("a covariance of the mixture has rows of different lengths.")
    values = torch.tensor(covariance, dtype=torch.float64)
    return values.diag() if values.ndim == 1 else values
