"""Consistent diffusion: Daras et al. (2023), on DDPM and, as released, on EDM.

L = base loss + lambda E[(D_1 - D_0).(D_2 - D_0)]: D_0 predicts x_0 at x_t, D_1 and D_2 at the ends x_t' of two
independent short reverse chains from the same x_t, made without gradient. Given x_t the product is an
unbiased estimate of |E[D(x_t', t') | x_t] - D_0|^2, so it may be negative. Tags: [found] in the published code,
[derived] worked out here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.config.load import merge
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm, edm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.transitions import Transitions
    from pipeline_lib.objectives import Batch


class Options(ddpm.Options):
    """Options of the consistency term; `norm` is that of both terms, `weighting` that of the simple loss on path vp."""

    lambda_consistency: float = Field(
        10.0, ge=0, allow_inf_nan=False, description="weight of the consistency term; released 10 [found]"
    )
    consistency_weighting: Literal["none", "snr/(snr+1)"] = Field(
        "none",
        description="factor of the consistency term at t. none: as released for EDM [found]; snr/(snr+1), for path vp: "
        "beside the simple loss of eps it weighs both terms as EDM's weights do [derived]",
    )
    chain_steps: int = Field(
        5,
        ge=1,
        description="reverse steps of a chain; released 5 [found]. On path vp each is a step of the path, so "
        "t' = t - chain_steps, but not below 1 [derived]",
    )
    sigma_span: float = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="on path edm, sigma' = sigma - u with u uniform on (0, sigma_span), not below sigma_min [found]",
    )
    variance: Literal["fixed-small", "fixed-large"] = Field(
        "fixed-small", description="on path vp, reverse variance of the chains [derived]"
    )
    augment: float = Field(
        0.0, ge=0, le=1, description="on path edm, the augmentation of the objective edm; released 0.12 [found]"
    )
    chains_told: bool = Field(
        True,
        description="whether the chains too are told how an image was augmented; the released ones are not, while D_0, "
        "D_1 and D_2 are [found]",
    )


# Ho et al. (2020) as base; the port to DDPM is not published, so all of it is [derived]
_DDPM: dict[str, Any] = {"objective": {"lambda_consistency": 2.5, "consistency_weighting": "snr/(snr+1)"}}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": merge(ddpm.PRESETS["paper"], _DDPM),
    # CIFAR-10 of the released code, which is that of EDM but for the second term [found]
    "released": merge(edm.PRESETS["paper"], {"objective": {"chains_told": False}}),
}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where the options do not fit the path."""
    ddpm.check(options, run, where)
    timesteps = run.diffusion.timesteps
    if run.diffusion.path == "edm":
        edm.check_augmentation(options.augment, run, where)
        for name in ("weighting", "consistency_weighting"):
            if getattr(options, name) != Options.model_fields[name].default:
                raise BadConfig(f"{where}: objective.{name} is for path vp; leave it out on path edm.")
        if options.sigma_span >= run.diffusion.sigma_max:
            raise BadConfig(
                f"{where}: objective.sigma_span is {options.sigma_span:g}, but the grid of the path ends at "
                f"diffusion.sigma_max {run.diffusion.sigma_max:g}; a chain is shorter than that."
            )
    elif options.augment:
        raise BadConfig(f"{where}: objective.augment is for path edm; leave it out on path vp.")
    elif options.chain_steps >= timesteps:
        raise BadConfig(
            f"{where}: objective.chain_steps is {options.chain_steps}, but from t = {timesteps} (diffusion.timesteps) "
            f"only {timesteps - 1} steps lead down to t = 1."
        )


def depths(options: Options, timesteps: int, batch_size: int, group: int | None) -> np.ndarray:
    """Expected number of images that the network is trained on in one optimiser step: float64 (T + 1, n + 1); path vp.

    Row t is the time of the call; column j says how many reverse steps of the model the input has behind it. D_0 sees
    q(x_t), D_1 and D_2 the ends of the chains. What chains ask on their way has no gradient and does not count.
    """
    steps = options.chain_steps
    calls = np.zeros((timesteps + 1, steps + 1))
    for t in range(1, timesteps + 1):
        length = min(steps, t - 1)
        calls[t, 0] += batch_size / timesteps
        calls[t - length, length] += 2 * batch_size / timesteps
    return calls


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image: D_0, then two chains whose first step costs none, and their ends.

    Chains that are told less than D_0 share a call for their first step. On path vp a chain from t makes at most t - 1
    steps; t is uniform on {1..T}.
    """
    steps, timesteps = options.chain_steps, run.diffusion.timesteps
    if run.diffusion.path == "edm":
        return 1 + 2 * steps + bool(options.augment and not options.chains_told)
    return 3 + 2 * sum(max(min(steps, t - 1) - 1, 0) for t in range(1, timesteps + 1)) / timesteps


class ConsistentDM:
    """The base loss of every image, and the product of what two chains say against its prediction."""

    def __init__(self, options: Options) -> None:
        from pipeline_lib.diffusion.transitions import VARIANCES, Transitions

        self.options, self.simple = options, ddpm.build(options)
        self.weights = {"simple": 1.0, "consistency": options.lambda_consistency}
        self._transitions = lru_cache(maxsize=1)(lambda path: Transitions(path, VARIANCES[options.variance]))

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """{simple: (B,), consistency: (B,)}."""
        from pipeline_lib.diffusion.denoiser import perturb
        from pipeline_lib.diffusion.paths import EDMPath
        from pipeline_lib.objectives import _augment

        path, x0, told = denoiser.path, batch.x0, denoiser
        if self.options.augment:
            change = _augment.draw(batch, self.options.augment)
            x0, told = _augment.apply(x0, change), _augment.Told(denoiser, change.labels)
        t, eps = path.draw_times(batch.uniform(Stream.TIME)), batch.normal(Stream.NOISE)
        predicted = told(perturb(path, x0, t, eps), t, batch.labels)
        if isinstance(path, EDMPath):
            error = (predicted.x0 - x0).square()
            base = edm.weight(t, path.config.sigma_data) * ddpm.over_pixels(error, self.options.norm)
        else:
            base = self.simple.loss(predicted, x0, eps)
        chains = told if self.options.chains_told else denoiser
        return {"simple": base, "consistency": self.consistency(told, batch, predicted, t, chains)}

    def consistency(
        self, denoiser: Denoising, batch: Batch, predicted: Prediction, t: Tensor, chaining: Denoising
    ) -> Tensor:
        """(B,): (D_1 - D_0)(D_2 - D_0) over pixels, weighted, for the prediction at x_t, t (B,).

        `chaining` is the denoiser of the chains: the same, or one that is told less.
        """
        import torch

        with torch.no_grad():
            start = predicted if chaining is denoiser else chaining(predicted.x, t, batch.labels)
            ends, t_end = self.chains(chaining, batch, start, t)
        one, other = denoiser(ends, t_end, _twice(batch.labels)).x0.chunk(2)
        product = ddpm.over_pixels((one - predicted.x0) * (other - predicted.x0), self.options.norm)
        if self.options.consistency_weighting == "none":
            return product
        a, s = predicted.a.flatten(), predicted.s.flatten()
        return product * a**2 / (a**2 + s**2)

    def chains(self, denoiser: Denoising, batch: Batch, predicted: Prediction, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t' (2B,C,H,W) and t' (2B,) at the ends of both chains: the first ones of all images, then the second."""
        import torch

        from pipeline_lib.diffusion.paths import EDMPath, VPPath

        def normal(left: int) -> Tensor:  # of both chains, with `left` steps to make
            return torch.cat([batch.normal(Stream.CHAIN, 2 * left + chain) for chain in (0, 1)])

        path, steps, labels = denoiser.path, self.options.chain_steps, _twice(batch.labels)
        x, x0, t = _twice(predicted.x), _twice(predicted.x0), _twice(t)
        if isinstance(path, EDMPath):
            span = self.options.sigma_span * _twice(batch.uniform(Stream.SPAN))
            end = torch.minimum((t - span).clamp(min=path.config.sigma_min), t)
            return euler(denoiser, x, x0, t, end, steps, path.config.rho, normal, labels), end
        assert isinstance(path, VPPath)
        length = (t.long() - 1).clamp(max=steps)  # down to t = 1: the network knows no clean data
        transitions = self._transitions(path)
        return ancestral(denoiser, x, x0, t, length, steps, transitions, normal, labels), t - length


def ancestral(
    denoiser: Denoising,
    x: Tensor,
    x0: Tensor,
    t: Tensor,
    length: Tensor,
    steps: int,
    transitions: Transitions,
    normal: Callable[[int], Tensor],
    labels: Tensor | None,
) -> Tensor:
    """x_{t - length} from x = x_t (N,C,H,W), each image by its own number of steps, at most `steps`; t, length (N,).

    x0 is what the network predicts at x, so that the first step costs no call. `normal(left)` (N,C,H,W) is the noise
    of a step: each image draws its first with left = `steps`, whatever the others of its batch do.
    """
    import torch

    from pipeline_lib.diffusion.transitions import rollout

    moves = length > 0
    first = transitions.move(x0, x, t, normal(steps))
    x = torch.where(moves.reshape(-1, *[1] * (x.ndim - 1)), first, x)

    def rest(rows: Tensor, left: int) -> Tensor:
        return normal(left)[rows]

    return rollout(denoiser, x, t - moves.long(), length - moves.long(), transitions, rest, labels)


def euler(
    denoiser: Denoising,
    x: Tensor,
    x0: Tensor,
    sigma: Tensor,
    end: Tensor,
    steps: int,
    rho: float,
    normal: Callable[[int], Tensor],
    labels: Tensor | None,
) -> Tensor:
    """x (N,C,H,W) taken from sigma to end, both (N,), by Euler steps of the reverse SDE, even in s^(1/rho) [found].

    dx = 2 (x - D) / s ds + sqrt(2 s) dw. x0 and `normal` are those of `ancestral`.
    """
    high, low = sigma ** (1 / rho), end ** (1 / rho)
    levels = [(high + k / steps * (low - high)) ** rho for k in range(steps + 1)]
    shape = (-1, *[1] * (x.ndim - 1))
    for k, (s, after) in enumerate(pairwise(levels)):
        if k > 0:
            x0 = denoiser(x, s, labels).x0
        s, down = s.reshape(shape), (s - after).clamp(min=0).reshape(shape)
        x = x - 2 * down * (x - x0) / s + (2 * s * down).sqrt() * normal(steps - k)
    return x


def _twice(values: Any) -> Any:
    """For both chains: the values of all images, then again; None stays None."""
    import torch

    return None if values is None else torch.cat((values, values))


def build(options: Options) -> ConsistentDM:
    """The objective."""
    return ConsistentDM(options)
