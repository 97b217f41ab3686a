"""Analytic-DPM: on isotropic Gaussian data its variance is the exact one, so that every x_t has its exact law."""

from math import pi

import pytest
import torch

from pipeline_lib.analytic import exact, sampler_kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Oracle
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import ancestral
from pipeline_lib.samplers.analytic_dpm import Options, sample, variance

SPREAD = 0.04  # variance of the data
DATA = gaussian(torch.zeros(2), SPREAD * torch.eye(2))
PATH = paths.build(Diffusion(timesteps=100))


def gamma(nfe: int) -> dict[int, float]:
    """E |eps|^2 / d of the exact eps = s x_t / (a^2 v + s^2)."""
    return {round(step.t): step.s**2 / (step.a**2 * SPREAD + step.s**2) for step in PATH.grid(nfe)}


def options(nfe: int, **more: object) -> Options:
    return Options(gamma=gamma(nfe), clip_last_pixels=None, **more)


def deviations(nfe: int, sampler: object, options: object) -> torch.Tensor:
    """Moments of x_t at every place but the last, less those of q(x_t), in standard errors."""
    grid = PATH.grid(nfe)
    done = sampler_kit.trial(sampler, options, Oracle(PATH, DATA), grid, 2, 20_000)
    laws = [
        exact.Normal(torch.zeros(2, dtype=torch.float64), (a**2 * SPREAD + s**2) * torch.eye(2, dtype=torch.float64))
        for a, s in zip(grid.a, grid.s, strict=True)
    ]
    return sampler_kit.moment_scores(done, laws)[:-1]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("nfe", [3, 10])
def test_every_marginal_is_exact_however_few_the_steps(nfe: int, eta: float) -> None:
    assert float(deviations(nfe, sample, options(nfe, eta=eta)).abs().max()) < 4.5


@pytest.mark.parametrize("of", ["fixed-small", "fixed-large"])
def test_those_of_a_fixed_variance_are_not(of: str) -> None:
    assert float(deviations(10, ancestral.sample, ancestral.Options(variance=of)).abs().max()) > 20


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_its_ddim_form_is_the_published_one(eta: float) -> None:
    """l^2 + (sqrt(abar_u) - sqrt((bbar_u - l^2) abar_t / bbar_t))^2 clip(bbar_t / abar_t (1 - Gamma_t), 0, 1), with
    l = 0 for DDIM."""
    for step in list(PATH.grid(7))[:-1]:
        abar_t, abar_u, found = step.a**2, step.a_next**2, gamma(7)[round(step.t)]
        bbar_t, bbar_u = 1 - abar_t, 1 - abar_u
        lambda2 = eta**2 * bbar_u / bbar_t * (1 - abar_t / abar_u)
        share = abar_u**0.5 - ((bbar_u - lambda2) * abar_t / bbar_t) ** 0.5
        expected = lambda2 + share**2 * min(max(bbar_t / abar_t * (1 - found), 0), 1)
        assert variance(step, options(7, eta=eta), last_noise=False) == pytest.approx(expected, rel=1e-9)


def test_a_tenth_more_variance_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_lib.samplers import analytic_dpm

    monkeypatch.setattr(analytic_dpm, "variance", lambda *a, **b: 1.1 * variance(*a, **b))
    assert float(deviations(10, sample, options(10)).abs().max()) > 5


def test_the_ddpm_form_is_the_published_one() -> None:
    """beta_{t|u} bbar_u / bbar_t + abar_u beta_{t|u}^2 / bbar_t^2 clip(bbar_t / abar_t (1 - Gamma_t), 0, 1)."""
    for step in list(PATH.grid(7))[:-1]:
        abar_t, abar_u, found = step.a**2, step.a_next**2, gamma(7)[round(step.t)]
        bbar_t, bbar_u, beta = 1 - abar_t, 1 - abar_u, 1 - abar_t / abar_u
        covariance = min(max(bbar_t / abar_t * (1 - found), 0), 1)
        expected = beta * bbar_u / bbar_t + abar_u * beta**2 / bbar_t**2 * covariance
        assert variance(step, options(7), last_noise=False) == pytest.approx(expected, rel=1e-9)


def test_clips() -> None:
    step: Step = PATH.grid(7).step(2)
    wide = Options(gamma={round(step.t): -5.0}, clip_last_pixels=None)
    free = wide.model_copy(update={"clip_variance": False})
    one = Options(gamma={round(step.t): 1 - (step.a / step.s) ** 2}, clip_last_pixels=None)  # a covariance of 1
    assert variance(step, wide, False) == pytest.approx(variance(step, one, False))
    assert variance(step, free, False) > variance(step, wide, False)
    held = Options(gamma={round(step.t): 0.5}, clip_last_pixels=2)
    assert variance(step, held, last_noise=False) > variance(step, held, last_noise=True)
    std = variance(step, held, last_noise=True) ** 0.5
    assert std * (2 / pi) ** 0.5 == pytest.approx(2 * 2 / 255)  # mean of |N(0, std^2)|, in a range of 2


def test_an_unknown_gamma_is_told() -> None:
    with pytest.raises(BadConfig, match="no Gamma at t = "):
        variance(PATH.grid(7).step(0), Options(gamma={3: 0.5}), False)


def test_it_calls_the_network_once_at_every_time() -> None:
    done = sampler_kit.trial(sample, options(6), Oracle(PATH, DATA), PATH.grid(6), 2, 5)
    assert sampler_kit.visit_faults(done) == []
