"""The variational bound: KL and bins against other formulas, the bound of Gaussian data in closed form."""

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.bound import Bound, discretised_nll, kl_of_normals, learned_variance
from pipeline_lib.diffusion.denoiser import Prediction, perturb

PATH = paths.build(Diffusion(timesteps=30))
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
LEVELS = torch.arange(256) / 127.5 - 1


def test_kl_is_that_of_torch() -> None:
    mean, std, gap, other = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, std.exp()), Normal(mean + gap, other.exp()))
    assert torch.allclose(kl_of_normals(gap, 2 * std, 2 * other), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("mean", [-3.0, -0.99, 0.0, 0.4, 1.0])
def test_probabilities_of_all_levels_sum_to_one(mean: float, std: float) -> None:
    nll = discretised_nll(LEVELS, torch.full((256,), mean), torch.full((256,), log(std)))
    assert float(torch.exp(-nll.double()).sum()) == pytest.approx(1, abs=2e-4)


def test_bins_are_those_of_another_library_far_into_both_tails() -> None:
    levels = np.arange(256) / 127.5 - 1
    for mean, std in ((0.1, 0.02), (-0.7, 0.1), (0.5, 2.0)):
        low = np.where(levels > 0.999, -stats.norm.logsf(levels - 1 / 255, mean, std), 0)
        high = np.where(levels < -0.999, -stats.norm.logcdf(levels + 1 / 255, mean, std), 0)
        with np.errstate(divide="ignore"):  # each half is used on its own side
            upper, lower = (stats.norm.logsf(levels + s / 255, mean, std) for s in (1, -1))
            right = -(lower + np.log1p(-np.exp(upper - lower)))
            upper, lower = (stats.norm.logcdf(levels + s / 255, mean, std) for s in (1, -1))
            left = -(upper + np.log1p(-np.exp(lower - upper)))
        expected = np.where(low + high > 0, low + high, np.where(levels > mean, right, left))
        found = discretised_nll(LEVELS, torch.full((256,), mean), torch.full((256,), log(std)))
        assert np.allclose(found.numpy(), expected, rtol=5e-3, atol=1e-3)


def test_its_gradient_is_that_of_finite_differences_far_from_the_mean() -> None:
    """Up to 10,000 standard deviations, which an untrained network reaches."""
    log_std = torch.linspace(-9, 2, 256, dtype=torch.float64).requires_grad_()
    for mean in (-2.0, 0.1, 2.0):
        at = torch.full((256,), mean, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(discretised_nll(LEVELS.double(), at, log_std).sum(), log_std)
        up, down = (discretised_nll(LEVELS.double(), at, log_std.detach() + h) for h in (1e-4, -1e-4))
        assert torch.allclose(gradient, (up - down) / 2e-4, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [{"timesteps": 8}, {"timesteps": 1000, "schedule": "cosine"}])
def test_an_untrained_network_has_finite_terms_and_gradients(config: dict[str, Any]) -> None:
    """At T of the cosine schedule a zero eps means an x_0 of 20,000."""
    path = paths.build(Diffusion(**config))
    t = torch.arange(1.0, path.timesteps + 1)
    random = torch.Generator().manual_seed(0)
    x0 = torch.rand(len(t), 1, 4, 4, generator=random) * 2 - 1
    x = perturb(path, x0, t, torch.randn(x0.shape, generator=random))
    a, s = (c[:, None, None, None] for c in path.coefficients(t))
    fraction = torch.full_like(x, 0.5).requires_grad_()
    bits = Bound(path).bits(x0, Prediction(x, a, s, torch.zeros_like(x), "eps", fraction), t)
    bits.sum().backward()
    assert bool(bits.isfinite().all())
    assert bool(fraction.grad.isfinite().all())


@pytest.mark.parametrize("steps", [30, 7])
def test_the_learned_variance_lies_between_those_of_the_grids_own_step(steps: int) -> None:
    for step in list(PATH.grid(steps))[:-1]:
        ends = learned_variance(step, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
        small, large = step.posterior_variance, step.forward_variance
        assert ends.tolist() == pytest.approx([small, (small * large) ** 0.5, large])


def terms_at(t: int, fraction: float, count: int = 40_000) -> Tensor:
    """Terms of the bound (count,) at t for the exact denoiser."""
    problem = kit.Problem(PATH, DATA, "eps")
    affine, batch = problem.optimum(), problem.batch(count, t)
    times = torch.full((count,), float(t))
    with torch.no_grad():
        affine.fraction.fill_(fraction)
        eps = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(t))
        prediction = affine(perturb(PATH, batch.x0, times, eps), times)
        return Bound(PATH).bits(batch.x0, prediction, times).double()


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0, 1.3])
@pytest.mark.parametrize("t", [2, 3, 15, 30])
def test_the_bound_of_the_exact_denoiser_on_gaussian_data(t: int, fraction: float) -> None:
    """KL of the posterior to N(mean, v): its mean depends on the posterior variance of x_0 alone."""
    now, before = (float(PATH.alpha_bar[k]) for k in (t, t - 1))
    beta = 1 - now / before
    small, weight = (1 - before) / (1 - now) * beta, before**0.5 * beta / (1 - now)
    variance = beta**fraction * small ** (1 - fraction)
    eye, covariance = torch.eye(2).double(), DATA.moments()[1]
    left = covariance - now * covariance @ torch.linalg.inv(now * covariance + (1 - now) * eye) @ covariance
    gap = weight**2 * float(left.trace()) / 2
    nats = 0.5 * (log(variance / small) - 1 + (small + gap) / variance)
    found = terms_at(t, fraction)
    assert float(found.mean()) == pytest.approx(nats / log(2), abs=4 * float(found.std()) / 200 + 1e-5)


def test_the_first_term_is_the_decoder_with_the_clipped_variance() -> None:
    """At t = 1 the mean is the predicted x_0, and the smaller variance that of t = 2, as in the released code."""
    x0, guess = LEVELS[[3, 128, 250]].reshape(1, 3, 1, 1), torch.tensor([0.0, 0.01, 0.9]).reshape(1, 3, 1, 1)
    fraction, one = torch.full_like(x0, 0.25), torch.ones(1)
    prediction = Prediction(x0, torch.ones(1), torch.ones(1), guess, "x0", fraction)
    small, large = (1 - PATH.alpha_bar[1]) / (1 - PATH.alpha_bar[2]) * _beta(2), _beta(1)
    log_std = 0.5 * (0.25 * large.log() + 0.75 * small.log())
    expected = discretised_nll(x0, guess, torch.full_like(x0, float(log_std))).mean() / log(2)
    assert float(Bound(PATH).bits(x0, prediction, one)) == pytest.approx(float(expected), rel=1e-5)


def _beta(t: int) -> Tensor:
    return 1 - PATH.alpha_bar[t] / PATH.alpha_bar[t - 1]


def test_only_the_variance_has_a_gradient() -> None:
    problem = kit.Problem(PATH, DATA, "eps")
    affine, batch = problem.optimum(), problem.batch(50, 0)
    t = PATH.draw_times(torch.rand(50, generator=torch.Generator().manual_seed(0)))
    Bound(PATH).bits(batch.x0, affine(batch.x0, t), t).sum().backward()
    assert affine.gain.grad is None
    assert float(affine.fraction.grad.abs().sum()) > 0
