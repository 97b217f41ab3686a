"""The simple loss against its definition."""

import pytest
import torch

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, perturb
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.objectives import Batch, ddpm

PATH = paths.build(Diffusion(timesteps=100))


class Zero(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        return torch.zeros_like(x)


def zero(kind: str) -> Denoiser:
    return Denoiser(Zero(), PATH, Diffusion(timesteps=100, prediction=kind))


def batch(count: int = 4096) -> Batch:
    return Batch(torch.full((count, 1, 2, 2), 0.5), None, torch.arange(count), 0, None, Noise(0))


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_terms_are_squared_distances_to_the_target(kind: str) -> None:
    """A network that answers 0 is as far off as the target is large."""
    data = batch()
    values = ddpm.build(ddpm.Options()).terms(zero(kind), data)["simple"]
    t, eps = PATH.draw_times(data.uniform(Stream.TIME)), data.normal(Stream.NOISE)
    a, s = (c[:, None, None, None] for c in PATH.coefficients(t))
    target = {"eps": eps, "x0": data.x0, "v": a * eps - s * data.x0}[kind]
    assert values.shape == (4096,)
    assert torch.allclose(values, target.square().mean((1, 2, 3)), atol=1e-6)


def test_sum_is_the_mean_times_the_dimension() -> None:
    denoiser = zero("eps")
    mean, total = (ddpm.build(ddpm.Options(norm=n)).terms(denoiser, batch(8))["simple"] for n in ("mean", "sum"))
    assert torch.allclose(total, 4 * mean)


def test_terms_of_a_sample_do_not_depend_on_the_batch() -> None:
    """Half of the batch on another device draws the same times and noise."""
    denoiser, whole = zero("eps"), batch(8)
    half = Batch(whole.x0[4:], None, whole.index[4:], 0, None, whole.noise)
    objective = ddpm.build(ddpm.Options())
    assert torch.equal(objective.terms(denoiser, whole)["simple"][4:], objective.terms(denoiser, half)["simple"])


def test_snr_weights_turn_the_loss_of_v_into_the_simple_loss_of_eps() -> None:
    """eps - eps_predicted = a (v - v_predicted), and SNR / (SNR + 1) = a^2 where a^2 + s^2 = 1."""
    data = batch(64)
    options = ddpm.Options(weighting="snr/(snr+1)")
    weighted = ddpm.build(options).terms(zero("v"), data)["simple"]
    t, eps = PATH.draw_times(data.uniform(Stream.TIME)), data.normal(Stream.NOISE)
    x = perturb(PATH, data.x0, t, eps)
    predicted = zero("v")(x, t).eps
    assert torch.allclose(weighted, (predicted - eps).square().mean((1, 2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_snr_weights_are_alpha_bar(kind: str) -> None:
    data, denoiser = batch(64), zero(kind)
    plain, weighted = (
        ddpm.build(ddpm.Options(weighting=w)).terms(denoiser, data)["simple"] for w in ("none", "snr/(snr+1)")
    )
    t = PATH.draw_times(data.uniform(Stream.TIME))
    assert torch.allclose(weighted / plain, PATH.alpha_bar[t.long()].float(), rtol=1e-4)
