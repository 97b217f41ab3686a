"""Whole trajectories against those of diffusers with the same noise: ancestral (DDPMScheduler), DDIM (DDIMScheduler).

Only `leading` and `trailing`: diffusers' `linspace` is another grid. Only step counts that divide T: for others its
`trailing` takes its times from numpy.arange with a fractional stride, which at some counts rounds another way or gives
one step more than asked for, and its schedulers do not agree on which time comes next (DDIM jumps by T // steps).
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, Kind
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.samplers import Draw, ancestral, clip_x0, ddim

ddpm = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
theirs_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")

KINDS: dict[str, Kind] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
BETAS = 0.02 + 0.6 * np.sin(np.linspace(0.1, 3.0, 24)) ** 2  # neither a known schedule nor monotonic
PATHS = {
    "linear": paths.build(Diffusion(schedule="linear", timesteps=1000)),
    "cosine": paths.build(Diffusion(schedule="cosine", timesteps=1000)),
    "trained": paths.VPPath(torch.from_numpy(np.concatenate(([1.0], np.cumprod(1 - BETAS))))),
}
THEIRS = {
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": BETAS, "num_train_timesteps": len(BETAS)},
}
INDEX, SHAPE = torch.arange(3), (2, 4, 4)


class Network(torch.nn.Module):
    """A fixed nonlinear function of all pixels and of the condition (0-based t on the scale of 1000 steps)."""

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        phase = condition[:, None, None, None] / 100
        return torch.tanh(0.7 * x.roll(1, -1) - 0.4 * x + phase.sin()) + 0.3 * x.mean((1, 2, 3), keepdim=True)


class WithVariance(Network):
    """The same, and as many channels that place the variance, somewhat beyond [-1, 1]."""

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        place = 1.2 * torch.sin(3 * x.roll(1, -2) + condition[:, None, None, None] / 50)
        return torch.cat((super().forward(x, condition), place), 1)


def network_of(variance: str) -> Network:
    return WithVariance() if variance == "learned" else Network()


def ours(schedule: str, spacing: str, variance: str, clip: bool, kind: Kind, steps: int) -> list[Tensor]:
    """x_t at every place."""
    path, seen = PATHS[schedule], []
    start = Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    end = ancestral.sample(
        Denoiser(network_of(variance), path, Diffusion(prediction=kind, learned_variance=variance == "learned")),
        path.grid(steps, spacing),
        start,
        Draw(Noise(0), INDEX),
        ancestral.Options(variance=variance),
        corrections=[clip_x0] if clip else [],
        observe=lambda step, x, prediction: seen.append(x),
    )
    return [*seen, end]


def theirs(
    schedule: str, spacing: str, variance: str, clip: bool, kind: str, steps: int, patch: pytest.MonkeyPatch
) -> list[Tensor]:
    """The same by diffusers, with its own betas; but their products in float64, as float32 leaves three digits of
    beta_t at the data end."""
    scheduler = ddpm.DDPMScheduler(
        variance_type="learned_range" if variance == "learned" else variance.replace("-", "_"),
        clip_sample=clip,
        prediction_type=kind,
        timestep_spacing=spacing,
        **THEIRS[schedule],
    )
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    scheduler.one = scheduler.one.double()
    scheduler.set_timesteps(steps)
    network, x = network_of(variance), Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    seen = [x]
    for i, t in enumerate(scheduler.timesteps):
        patch.setattr(ddpm, "randn_tensor", _noise_of(i, is_last=i == steps - 1))
        condition = (t * (1000 / scheduler.config.num_train_timesteps)).expand(len(x))
        x = scheduler.step(network(x, condition), t, x).prev_sample
        seen.append(x)
    return seen


def _noise_of(i: int, is_last: bool) -> Callable[..., Tensor]:
    """None at the end: with `trailing`, which ends above t = 0, diffusers adds noise to clean data."""

    def randn_tensor(shape: torch.Size, **_: object) -> Tensor:
        noise = Noise(0).normal(Stream.REVERSE, INDEX, i, shape[1:])
        return torch.zeros_like(noise) if is_last else noise

    return randn_tensor


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "free"])
@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large", "learned"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("linear", 10), ("linear", 40), ("cosine", 8), ("cosine", 25), ("trained", 6), ("trained", 24)],
)
def test_trajectories_are_those_of_diffusers(
    schedule: str, steps: int, spacing: str, variance: str, clip: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ours(schedule, spacing, variance, clip, KINDS[kind], steps)
    expected = theirs(schedule, spacing, variance, clip, kind, steps, monkeypatch)
    assert len(found) == len(expected) == steps + 1
    for x, y in zip(found, expected, strict=True):
        assert float((x - y).abs().max()) <= 1e-5 * float(y.abs().max())


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "free"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("schedule", "steps"), [("linear", 10), ("cosine", 25)])
def test_ddim_is_that_of_diffusers(schedule: str, steps: int, kind: str, clip: bool, eta: float) -> None:
    """With eps taken from the clipped x_0, as the released code of ADM does it. Its DDIM steps down by T // steps, so
    that only `leading` has the same times; its last step writes x at alpha_bar_0 = 1 with set_alpha_to_one."""
    path, seen = PATHS[schedule], []
    start = Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    end = ddim.sample(
        Denoiser(Network(), path, Diffusion(prediction=KINDS[kind])),
        path.grid(steps, "leading"),
        start,
        Draw(Noise(0), INDEX),
        ddim.Options(eta=eta),
        corrections=[clip_x0] if clip else [],
        observe=lambda step, x, prediction: seen.append(x),
    )
    scheduler = theirs_ddim.DDIMScheduler(
        clip_sample=clip, prediction_type=kind, timestep_spacing="leading", **THEIRS[schedule]
    )
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    scheduler.set_timesteps(steps)
    x, network = start, Network()
    for i, t in enumerate(scheduler.timesteps):
        assert float((x - seen[i]).abs().max()) <= 1e-5 * float(x.abs().max())
        noise = Noise(0).normal(Stream.REVERSE, INDEX, i, SHAPE) if eta else None
        output = network(x, t.expand(len(x)))
        x = scheduler.step(output, t, x, eta=eta, use_clipped_model_output=clip, variance_noise=noise).prev_sample
        x = x.float()
    assert float((x - end).abs().max()) <= 1e-5 * float(x.abs().max())
