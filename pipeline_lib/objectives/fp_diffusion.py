"""FP-Diffusion: Lai et al. (2023), the score Fokker-Planck equation as a penalty, on the VP path of DDPM.

The scores s of the laws of x_t obey ds/dt = (beta/2) grad_x [div s + |s|^2 + x.s] where dx = -(beta/2) x dt +
sqrt(beta) dw, so g^2 = beta. With r what is left of it,
L = simple loss + alpha E[g^2 (|r| / D)^m] + beta_scalar |(g^2/2) [div s + |s|^2 + x.s]|, the last norm over the batch.
Time runs from 0 to 1 over the path, as in the released code. Tags: [found] in the published code, [memory] recollected
and not seen, [derived] worked out here.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.load import merge
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.paths import VPPath
    from pipeline_lib.objectives import Batch


class Options(ddpm.Options):
    """Options of the Fokker-Planck penalty."""

    likelihood: bool = Field(
        False,
        description="weigh the simple loss by likelihood: (g^2/2) |s - target score|^2; the released code does [found]",
    )
    alpha: float = Field(0.15, ge=0, allow_inf_nan=False, description="weight of the residual; released 0.15 [found]")
    beta_scalar: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of the scalar term; released 0.01 [found], paper 0 [memory]",
    )
    power: float = Field(2.0, gt=0, le=4, description="m of (|r| / D)^m; released 2 [found]")
    residual_weighting: Literal["none", "g", "g2"] = Field(
        "g2", description="factor of the residual at t; released g^2 [found]"
    )
    probes: Literal[1, 2] = Field(
        1,
        description="Gaussian probes of the divergence. 1: as released [found], |r|^2 gains the variance of the probe; "
        "2: the product of two residuals, unbiased (needs power 2) [derived]",
    )
    step_back: float = Field(
        1e-3, gt=0, lt=0.1, description="h_s, lower arm of the time difference, in units of the path; 1e-3 [found]"
    )
    step_ahead: float = Field(
        5e-4, gt=0, lt=0.1, description="h_d, upper arm of the time difference, in units of the path; 5e-4 [found]"
    )


_CHANGES: dict[str, dict[str, Any]] = {
    # the row of Li and van der Schaar (2024), Table 1: their port to DDPM is not known. 0.15 beside half a sum over the
    # 3072 numbers of a CIFAR-10 image, as released, is 1e-4 beside their mean [derived]
    "paper": {"objective": {"alpha": 1e-4}},
    # what its literals come to, on the path of DDPM: a fine-tune, so it wants an init_from
    "released": {
        "objective": {"likelihood": True, "norm": "sum", "beta_scalar": 0.01},
        "training": {"batch_size": 48},
    },
}
PRESETS: dict[str, dict[str, Any]] = {name: merge(ddpm.PRESETS["paper"], more) for name, more in _CHANGES.items()}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where the options contradict each other or the path."""
    ddpm.check(options, run, where)
    if run.diffusion.path != "vp":
        raise BadConfig(
            f"{where}: fp-diffusion knows the Fokker-Planck equation of path vp (diffusion.path is "
            f"{run.diffusion.path})."
        )
    if run.training.precision == "bf16":
        raise BadConfig(
            f"{where}: fp-diffusion takes differences that bfloat16 rounds away; set training.precision to tf32."
        )
    if options.alpha == options.beta_scalar == 0:
        raise BadConfig(f"{where}: objective.alpha and objective.beta_scalar are both 0: that is the objective ddpm.")
    if options.probes == 2 and options.power != 2:
        raise BadConfig(
            f"{where}: objective.probes 2 is the product of two residuals, so objective.power must be 2 (it is "
            f"{options.power:g})."
        )
    if options.likelihood and options.weighting != "none":
        raise BadConfig(f"{where}: objective.likelihood is a weighting of its own; set objective.weighting to none.")


def whole_batch(options: Options) -> bool:
    """The scalar term is one norm over all images of a batch, as released, so it is no mean over parts of it."""
    return options.beta_scalar > 0


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image: the simple loss, the score at t, and at both arms."""
    return 4.0


class FPDiffusion:
    """The simple loss at a continuous t, and what is left of the score Fokker-Planck equation at the same x_t."""

    full_float32 = True  # the gradient of a time difference is a difference too, of two gradients

    def __init__(self, options: Options) -> None:
        self.options, self.simple = options, ddpm.build(options)
        self.weights = {"simple": 1.0, "residual": options.alpha, "scalar": options.beta_scalar}

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """{simple: (B,), residual: (B,)}, and scalar (1,) where it weighs anything."""
        from pipeline_lib.diffusion.denoiser import perturb

        path = _discrete(denoiser)
        t = (path.timesteps * batch.uniform(Stream.TIME)).clamp(min=1)  # so 1 keeps its share, as when t is rounded up
        eps = batch.normal(Stream.NOISE)
        x = perturb(path, batch.x0, t, eps)
        predicted = denoiser(x, t, batch.labels)
        terms = {"simple": self.base(predicted, batch.x0, eps, path.rate(t))}
        probes = [batch.normal(Stream.PROBE, i) for i in range(self.options.probes)]
        with island(denoiser, x.device.type):
            left, inner = self.equation(denoiser, x, t, probes, batch.labels)
            terms["residual"] = self.residual(left, path.rate(t).to(x.dtype))
            if self.options.beta_scalar:
                terms["scalar"] = (path.rate(t).to(x.dtype) / 2 * inner.mean(0)).norm().reshape(1)
        return terms

    def base(self, predicted: Prediction, x0: Tensor, eps: Tensor, rate: Tensor) -> Tensor:
        """(B,): the simple loss, or (g^2/2) |s - target|^2, averaged over pixels or summed."""
        if not self.options.likelihood:
            return self.simple.loss(predicted, x0, eps)
        norm = ddpm.over_pixels((predicted.eps - eps).square(), self.options.norm)
        return norm * rate.to(norm.dtype) / (2 * predicted.s.flatten() ** 2)

    def residual(self, left: Tensor, rate: Tensor) -> Tensor:
        """(B,): g^2 (|r| / D)^m from r (K,B,D) of K probes; of two probes, g^2 r_1.r_2 / D^2."""
        dimension, power = left.shape[-1], self.options.power
        size = left[0].norm(dim=1) ** power if len(left) == 1 else (left[0] * left[1]).sum(1)
        return rate ** {"none": 0.0, "g": 0.5, "g2": 1.0}[self.options.residual_weighting] * size / dimension**power

    def equation(
        self, denoiser: Denoising, x: Tensor, t: Tensor, probes: Sequence[Tensor], labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """r = ds/dt - (beta/2) grad_x q (K,B,D) and q = div s + |s|^2 + x.s (K,B), for each of K probes like x.

        The divergence is v.J v for a probe v. Computed in the clock -ln alpha_bar, in which beta is 1: there the exact
        score is smooth, while beta, and with it ds/dt, jumps where a step of the path ends.
        """
        import torch

        path = _discrete(denoiser)
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
        s = score(denoiser, x, t, labels)
        change = self.time_derivative(denoiser, x, t, s, labels)
        lefts, inners = [], []
        for probe in probes:
            (along,) = torch.autograd.grad((s * probe).sum(), x, create_graph=True)
            q = (along * probe + s.square() + x * s).flatten(1).sum(1)
            (slope,) = torch.autograd.grad(q.sum(), x, create_graph=True)
            lefts.append((change - slope / 2).flatten(1))
            inners.append(q)
        rate = path.rate(t).to(x.dtype)
        return rate[:, None] * torch.stack(lefts), torch.stack(inners)

    def time_derivative(self, denoiser: Denoising, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """ds / d(-ln alpha_bar) from s (B,C,H,W) at t and two more calls: three points, second order.

        The lower arm is at most t / 2, so that no call comes near t = 0, where the score has no bound.
        """
        import torch

        path, options = _discrete(denoiser), self.options
        later = t + options.step_ahead * path.timesteps
        earlier = t - torch.minimum(torch.full_like(t, options.step_back * path.timesteps), t / 2)
        clock = [-path.log_alpha_bar(time) for time in (earlier, t, later)]
        back, ahead = ((b - a).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for a, b in pairwise(clock))
        both = None if labels is None else labels.repeat(2)
        after, before = score(denoiser, torch.cat((x, x)), torch.cat((later, earlier)), both).chunk(2)
        return ((after - s) * back / ahead + (s - before) * ahead / back) / (back + ahead)


def score(denoiser: Denoising, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    """s = -eps / s_t, of the shape of x."""
    predicted = denoiser(x, t, labels)
    return -predicted.eps / predicted.s


@contextlib.contextmanager
def island(denoiser: Denoising, device_type: str) -> Iterator[None]:
    """Where derivatives of the network are safe to take.

    Neither autocast nor TF32: the differences are smaller than what they round away. Plain attention: the fused kernels
    have no second derivative. No dropout: two calls with two masks differ by more than time makes them.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from pipeline_lib.device import full_float32, plain

    module = denoiser if isinstance(denoiser, torch.nn.Module) else torch.nn.Identity()
    training = module.training
    module.eval()
    try:
        with full_float32(device_type), sdpa_kernel(SDPBackend.MATH), plain(), torch.enable_grad():
            yield
    finally:
        module.train(training)


def _discrete(denoiser: Denoising) -> VPPath:
    """The path, whose Fokker-Planck equation this is."""
    from pipeline_lib.diffusion.paths import VPPath

    assert isinstance(denoiser.path, VPPath), "this objective needs a path vp"
    return denoiser.path


def build(options: Options) -> FPDiffusion:
    """The objective."""
    return FPDiffusion(options)
