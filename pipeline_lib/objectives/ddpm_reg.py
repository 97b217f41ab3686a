"""DDPM with regularised cumulative error: Li and van der Schaar (ICLR 2024), Eq. 15-17.

L = lambda_nll L_nll + lambda_reg L_reg, with L_nll the simple loss and L_reg = sum_t w_t D_t for t in {0..T-1}. D_t is
the squared MMD between x_t reached by a few reverse steps of the model and x_t of the forward process. Tags say how
sure a value is: [found] in the published text or code, [memory] recollected and not seen, [derived] worked out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.config.load import merge
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.paths import VPPath
    from pipeline_lib.diffusion.transitions import Variance
    from pipeline_lib.objectives import Batch

SMALLEST_GROUP = 6  # halves of three images: the fewest that leave a median of distances to speak of


class Options(ddpm.Options):
    """Options of the regularised loss; the defaults are the paper's setting as far as it is known."""

    lambda_nll: float = Field(
        0.8, ge=0, allow_inf_nan=False, description="weight of the simple loss; paper 0.8 [memory], code 1 [found]"
    )
    lambda_reg: float = Field(
        0.2, ge=0, allow_inf_nan=False, description="weight of the regulariser; paper 0.2 [memory], code 1 [found]"
    )
    rho: float = Field(
        0.003,
        ge=0,
        allow_inf_nan=False,
        description="w_t is proportional to exp(rho (T - t)) over t in {0..T-1} (Eq. 15, [memory]); 0: equal weights. "
        "Paper 0.003 [memory], code 0 (it has no w_t) [found]",
    )
    estimator: Literal["importance", "sampled", "released"] = Field(
        "importance",
        description="importance: t uniform on {0..T-1} [found], weighted by T w_t [derived]; sampled: t drawn from w, "
        "weight 1 [derived]; released: s uniform on {2..T}, t = max(s - length, 1), weight 1 (needs rho 0) [found]",
    )
    bootstrap_length: int = Field(
        5, ge=1, description="L, the largest number of reverse steps from x_s to x_t; code 5 [found]"
    )
    rollout: Literal["uniform", "exact"] = Field(
        "uniform", description="number of reverse steps: uniform on {1..L} [found], or L; fewer where T is nearer"
    )
    warm_start: bool = Field(
        True,
        description="start from a noised training image at s (Eq. 16), or from N(0, I) at the same s [derived]; "
        "without it, L = T and rollout exact give the regulariser whose chains all start at T",
    )
    gradient: Literal["chain", "last"] = Field(
        "chain", description="differentiate through all reverse steps [found], or only through the last [derived]"
    )
    variance: Literal["fixed-small", "fixed-large"] = Field(
        "fixed-large", description="reverse variance: beta_t in the paper [memory], posterior in the code [found]"
    )
    kernel: Literal["laplace", "gaussian", "rational-quadratic", "five-gaussians"] = Field(
        "laplace",
        description="kernel of the MMD. The paper names Laplace among three in its figures [found]; that it trains "
        "with it is a reading [derived]. The code sums five Gaussians with l^2 1/4 to 4 times the bandwidth's [found]",
    )
    bandwidth: Literal["median", "mean"] | float = Field(
        "median",
        description="length scale l of the kernel, without gradient. median: of the distances within the forward half "
        "[derived]; mean: l^2 is half the mean squared distance within both halves together [found: code]; or a number",
    )
    statistic: Literal["u", "v"] = Field(
        "u",
        description="unbiased U-statistic (the paper calls its own so [found]), or V-statistic (code [found])",
    )


_CHANGES: dict[str, dict[str, Any]] = {
    "paper": {"training": {"mmd_group": 128}},  # one t for the whole batch is the code's choice [found]
    "released": {
        "objective": {
            "lambda_nll": 1.0,
            "lambda_reg": 1.0,
            "rho": 0.0,
            "estimator": "released",
            "variance": "fixed-small",
            "kernel": "five-gaussians",
            "bandwidth": "mean",
            "statistic": "v",
        },
        "training": {"mmd_group": 128},
    },
}
PRESETS: dict[str, dict[str, Any]] = {name: merge(ddpm.PRESETS[name], changes) for name, changes in _CHANGES.items()}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where the options contradict each other or the rest of the run."""
    ddpm.check(options, run, where)
    group, timesteps = run.training.mmd_group, run.diffusion.timesteps
    if group is None or group % 2 or group < SMALLEST_GROUP:
        raise BadConfig(
            f"{where}: ddpm-reg compares the two halves of each training.mmd_group images: set it to an even number "
            f"of at least {SMALLEST_GROUP} (it is {'not set' if group is None else group})."
        )
    if options.lambda_nll == options.lambda_reg == 0:
        raise BadConfig(f"{where}: objective.lambda_nll and objective.lambda_reg are both 0, so nothing is trained.")
    if options.bootstrap_length > timesteps:
        raise BadConfig(
            f"{where}: objective.bootstrap_length is {options.bootstrap_length}, but the path has only "
            f"{timesteps} steps (diffusion.timesteps)."
        )
    if time_weights(options.rho, timesteps)[-1] == 0:
        raise BadConfig(
            f"{where}: objective.rho is {options.rho:g}, which makes the weights of large t vanish at T = {timesteps}; "
            f"keep rho below {700 / timesteps:.3g}."
        )
    if options.estimator == "released" and options.rho != 0:
        raise BadConfig(f"{where}: the estimator 'released' has no time weights; set objective.rho to 0.")
    if not isinstance(options.bandwidth, str) and not 0 < options.bandwidth < float("inf"):
        raise BadConfig(f"{where}: objective.bandwidth must be positive and finite (it is {options.bandwidth:g}).")


def time_weights(rho: float, timesteps: int) -> np.ndarray:
    """w_t (T,) over t in {0..T-1}, proportional to exp(rho (T - t)), with sum 1 (Eq. 15)."""
    weights = np.exp(-rho * np.arange(timesteps))
    return weights / weights.sum()


def depths(options: Options, timesteps: int, batch_size: int, group: int) -> np.ndarray:
    """Expected number of images that the network sees in one optimiser step: float64 (T + 1, L).

    Row t is the time of the call; column j says how many reverse steps of the model the input has behind it, so that
    column 0 is q(x_t), whose share in the simple loss is batch_size / T at every t > 0. Without warm start, what the
    rollouts add to column 0 is N(0, I) instead. The sum is the cost in images.
    """
    length = options.bootstrap_length
    started = batch_size / group * (group // 2) * _starts(options, timesteps)
    longer = started[:, ::-1].cumsum(1)[:, ::-1]  # rollouts from s of more than j steps
    calls = np.zeros((timesteps + 1, length))
    for j in range(length):
        calls[1 : timesteps + 1 - j, j] = longer[1 + j :, j]
    calls[1:, 0] += batch_size / timesteps
    return calls


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image: one for the simple loss, and those of the rollouts."""
    batch, group = run.training.batch_size, run.training.mmd_group
    assert group, "this objective needs training.mmd_group"
    return float(depths(options, run.diffusion.timesteps, batch, group).sum() / batch)


def _starts(options: Options, timesteps: int) -> np.ndarray:
    """Probability (T + 1, L) that a rollout starts at s and makes 1 + column steps."""
    longest, drawn_uniformly = options.bootstrap_length, options.rollout == "uniform"
    found = np.zeros((timesteps + 1, longest))
    if options.estimator == "released":
        s = np.arange(2, timesteps + 1)
        for drawn in range(1, longest + 1) if drawn_uniformly else [longest]:
            found[s, np.minimum(drawn, s - 1) - 1] += 1.0
        return found / found.sum()
    even = np.full(timesteps, 1 / timesteps)
    weights = time_weights(options.rho, timesteps) if options.estimator == "sampled" else even
    most = np.minimum(longest, timesteps - np.arange(timesteps))
    for steps in range(1, longest + 1):
        (t,) = np.nonzero(most >= steps if drawn_uniformly else most == steps)
        found[t + steps, steps - 1] = weights[t] / (most[t] if drawn_uniformly else 1)
    return found


def draw_times(options: Options, timesteps: int, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """t and the number of reverse steps s - t, both (G,) int64, from uniform numbers u and v (G,) in (0, 1)."""
    import torch

    def whole(u: Tensor, count: Tensor) -> Tensor:  # uniform on {0..count - 1}
        return torch.minimum((u.double() * count).long(), count - 1)

    longest = torch.full_like(u, options.bootstrap_length, dtype=torch.int64)
    if options.estimator == "released":
        s = 2 + whole(u, torch.full_like(longest, timesteps - 1))
        steps = 1 + whole(v, longest) if options.rollout == "uniform" else longest
        t = (s - steps).clamp(min=1)
        return t, s - t
    if options.estimator == "sampled":
        cumulated = _weights(options.rho, timesteps, u.device).cumsum(0)
        t = torch.searchsorted(cumulated, u.double()).clamp(max=timesteps - 1)
    else:
        t = whole(u, torch.full_like(longest, timesteps))
    most = torch.minimum(longest, timesteps - t)
    return t, 1 + whole(v, most) if options.rollout == "uniform" else most


@lru_cache
def _weights(rho: float, timesteps: int, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(time_weights(rho, timesteps)).to(device)


@dataclass(frozen=True)
class Starts:
    """Where rollouts start: x_s (n,C,H,W) of the first half of each group, s, their lengths, labels and places (n,)."""

    x: Tensor
    s: Tensor
    length: Tensor
    labels: Tensor | None
    index: Tensor


class DDPMReg:
    """The simple loss of every image, and the squared MMD of every group of images."""

    def __init__(self, options: Options, variance: Variance | None = None) -> None:
        """`variance` replaces the fixed reverse variance of the options, such as by the exact one of known data."""
        from pipeline_lib.diffusion.transitions import VARIANCES, Transitions

        self.options, self.simple = options, ddpm.build(options)
        self.weights = {"simple": options.lambda_nll, "cumulative": options.lambda_reg}
        reverse = variance or VARIANCES[options.variance]
        self._transitions = lru_cache(maxsize=1)(lambda path: Transitions(path, reverse))

    def plan(self, path: VPPath, batch: Batch) -> tuple[int, ...]:
        """How many images make at least 1, 2, ... reverse steps: so many go through the network in each call."""
        from pipeline_lib.diffusion.transitions import longer

        assert batch.group, "this objective needs training.mmd_group"
        half = batch.group // 2
        return tuple(half * groups for groups in longer(self._times(path, batch)[1]))

    def _times(self, path: VPPath, batch: Batch) -> tuple[Tensor, Tensor]:
        u, v = (batch.group_uniform(Stream.GROUP_TIME, sub) for sub in (0, 1))
        return draw_times(self.options, path.timesteps, u, v)

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """{simple: (B,), cumulative: (G,)}. One call of the network answers the simple loss and begins the rollouts."""
        import torch

        path, count = _discrete(denoiser), len(batch.x0)
        times = path.draw_times(batch.uniform(Stream.TIME))
        x, eps = self.simple.noised(path, batch, times)
        t, length = self._times(path, batch)
        starts = self.starts(path, batch, t, length)
        labels = None if batch.labels is None or starts.labels is None else torch.cat((batch.labels, starts.labels))
        predicted = denoiser(torch.cat((x, starts.x)), torch.cat((times, starts.s)), labels)
        halves = self.rolled(denoiser, batch, starts, predicted[count:].x0), self.noised(path, batch, t)
        return {
            "simple": self.simple.loss(predicted[:count], batch.x0, eps),
            "cumulative": self.cumulative(*halves, t, path.timesteps),
        }

    def cumulative(self, x: Tensor, y: Tensor, t: Tensor, timesteps: int) -> Tensor:
        """Estimates (G,) of L_reg: the squared MMD of halves x and y (G, group / 2, d) at t (G,), weighted as the
        estimator asks."""
        from pipeline_lib.diffusion.kernels import squared_distances
        from pipeline_lib.diffusion.mmd import mmd2

        options = self.options
        xx, xy, yy = squared_distances(x), squared_distances(x, y), squared_distances(y)
        scale = length_scale(xx.detach(), xy.detach(), yy.detach(), options.bandwidth)
        kernel = kernel_of(options.kernel)
        value = mmd2(kernel(xx, scale), kernel(xy, scale), kernel(yy, scale), options.statistic)
        if options.estimator == "importance":
            value = timesteps * _weights(options.rho, timesteps, value.device)[t] * value
        return value.to(x.dtype)

    def starts(self, path: VPPath, batch: Batch, t: Tensor, length: Tensor) -> Starts:
        """x_s of the first halves at s = t + length (Eq. 16); t and length (G,)."""
        from pipeline_lib.diffusion.denoiser import perturb

        x0, index = _half(batch.x0, batch, 0), _half(batch.index, batch, 0)
        labels = None if batch.labels is None else _half(batch.labels, batch, 0)
        eps = batch.noise.normal(Stream.GROUP_NOISE, index, batch.step, x0.shape[1:])
        length = length.repeat_interleave(len(x0) // len(t))
        s = t.repeat_interleave(len(x0) // len(t)) + length
        x = perturb(path, x0, s, eps) if self.options.warm_start else path.prior_std * eps
        return Starts(x, s, length, labels, index)

    def rolled(self, denoiser: Denoising, batch: Batch, starts: Starts, first: Tensor | None = None) -> Tensor:
        """Flattened x_t (G, group / 2, d) by the model's steps from the starts (Eq. 17), where it predicts `first`."""
        from pipeline_lib.diffusion.transitions import rollout

        def normal(rows: Tensor, left: int) -> Tensor:
            return batch.noise.normal(Stream.GROUP_NOISE, starts.index[rows], batch.step, starts.x.shape[1:], left)

        x = rollout(
            denoiser,
            starts.x,
            starts.s,
            starts.length,
            self._transitions(_discrete(denoiser)),
            normal,
            starts.labels,
            self.options.gradient,
            counts=batch.plan if isinstance(batch.plan, tuple) else None,
            first=first,
        )
        return _grouped(x, batch)

    def noised(self, path: VPPath, batch: Batch, t: Tensor) -> Tensor:
        """Flattened x_t (G, group / 2, d) of the second halves by the forward process; t (G,)."""
        from pipeline_lib.diffusion.denoiser import perturb

        x0, index = _half(batch.x0, batch, 1), _half(batch.index, batch, 1)
        eps = batch.noise.normal(Stream.GROUP_NOISE, index, batch.step, x0.shape[1:])
        return _grouped(perturb(path, x0, t.repeat_interleave(len(x0) // len(t)), eps), batch)


def _half(values: Tensor, batch: Batch, which: int) -> Tensor:
    """The first (0) or second (1) halves of all groups."""
    assert batch.group, "this objective needs training.mmd_group"
    return values.unflatten(0, (-1, 2, batch.group // 2))[:, which].flatten(0, 1)


def _grouped(x: Tensor, batch: Batch) -> Tensor:
    """Halves of groups, image by image, as (G, group / 2, d)."""
    assert batch.group, "this objective needs training.mmd_group"
    return x.reshape(-1, batch.group // 2, x.shape[1:].numel())


def _discrete(denoiser: Denoising) -> VPPath:
    """The path, which must have steps 1..T."""
    from pipeline_lib.diffusion.paths import VPPath

    assert isinstance(denoiser.path, VPPath), "this objective needs a path of discrete steps"
    return denoiser.path


def kernel_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The kernel as a function of squared distances and length scale."""
    from pipeline_lib.diffusion.kernels import KERNELS

    return five_gaussians if name == "five-gaussians" else KERNELS[name]


def five_gaussians(squared: Tensor, scale: Tensor) -> Tensor:
    """sum of exp(-d^2 / (b 2^m)) over m = -2..2 with b = 2 l^2, as released; k(x, x) is 5."""
    import torch

    from pipeline_lib.diffusion.kernels import gaussian

    return torch.stack([gaussian(squared, scale * 2 ** (m / 2)) for m in range(-2, 3)]).sum(0)


def length_scale(xx: Tensor, xy: Tensor, yy: Tensor, bandwidth: str | float) -> Tensor:
    """l (G, 1, 1) from squared distances (G, n, n), (G, n, m), (G, m, m)."""
    import torch

    n, m = xy.shape[-2:]
    if bandwidth == "median":
        row, column = torch.triu_indices(m, m, 1, device=yy.device)
        return yy[..., row, column].median(-1).values.sqrt()[..., None, None]
    if bandwidth == "mean":
        total = xx.sum((-2, -1)) + 2 * xy.sum((-2, -1)) + yy.sum((-2, -1))
        return (total / (n + m) / (n + m - 1) / 2).sqrt()[..., None, None]
    return torch.full_like(xy[..., :1, :1], float(bandwidth))


def build(options: Options) -> DDPMReg:
    """The objective."""
    return DDPMReg(options)
