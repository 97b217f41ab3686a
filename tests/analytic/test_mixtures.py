"""Mixtures against numerical integration and Monte Carlo."""

import math

import pytest
import torch

from pipeline_lib.analytic.mixtures import gaussian, mixture
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.exits import BadConfig

ONE_D = mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-0.6], [0.4]]), torch.tensor([[[0.01]], [[0.04]]]))
TWO_D = mixture(
    torch.tensor([0.5, 0.5]),
    torch.tensor([[0.5, 0.0], [-0.5, 0.2]]),
    torch.tensor([[[0.05, 0.02], [0.02, 0.04]], [[0.02, 0.0], [0.0, 0.1]]]),
)


@pytest.mark.parametrize(("a", "s"), [(0.9, 0.3), (0.1, 0.99), (0.999, 0.02), (1.0, 5.0)])
@pytest.mark.parametrize("x", [-0.9, 0.05, 1.5])
def test_posterior_moments_equal_numerical_integration(a: float, s: float, x: float) -> None:
    grid = torch.linspace(-3, 3, 200_001, dtype=torch.float64)
    prior = ONE_D.log_density(grid[:, None])
    log_weight = prior - 0.5 * ((x - a * grid) / s) ** 2
    weight = torch.softmax(log_weight, 0)
    mean = (weight * grid).sum()
    variance = (weight * (grid - mean) ** 2).sum()
    found_mean, found_covariance = ONE_D.posterior(torch.tensor([[x]], dtype=torch.float64), a, s)
    assert float(found_mean) == pytest.approx(float(mean), rel=1e-6, abs=1e-9)
    assert float(found_covariance) == pytest.approx(float(variance), rel=1e-6)


def test_density_integrates_to_one_and_moments_are_its_own() -> None:
    grid = torch.linspace(-3, 3, 100_001, dtype=torch.float64)
    density = ONE_D.log_density(grid[:, None]).exp()
    step = float(grid[1] - grid[0])
    mean, covariance = ONE_D.moments()
    assert float(density.sum()) * step == pytest.approx(1)
    assert float((density * grid).sum()) * step == pytest.approx(float(mean))
    assert float((density * (grid - mean) ** 2).sum()) * step == pytest.approx(float(covariance))


def test_far_from_all_components_nothing_overflows() -> None:
    mean, covariance = TWO_D.posterior(torch.tensor([[60.0, -80.0]], dtype=torch.float64), 0.9999, 0.01)
    assert torch.isfinite(mean).all()
    assert torch.isfinite(covariance).all()


def test_samples_have_the_moments() -> None:
    x = TWO_D.sample(Noise(0), 40_000)
    mean, covariance = TWO_D.moments()
    spread = (covariance.diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - mean).abs() < 4 * spread).all()
    assert torch.allclose(torch.cov(x.T), covariance, atol=4 * float(covariance.max()) * math.sqrt(2 / len(x)))


def test_score_of_the_marginal_is_tweedie() -> None:
    """(a E[x_0 | x] - x) / s^2 is the gradient of the log density (Robbins; Efron, 2011)."""
    a, s = 0.7, 0.5
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (score,) = torch.autograd.grad(TWO_D.noised(a, s).log_density(x).sum(), x)
    assert torch.allclose((a * TWO_D.posterior(x.detach(), a, s)[0] - x) / s**2, score)


@pytest.mark.parametrize(
    ("covariance", "sentence"),
    [([[1.0, 0.0], [0.0, -0.1]], "not positive"), ([[1.0, 0.5], [0.0, 1.0]], "not symmetric")],
)
def test_what_is_no_covariance_is_refused(covariance: list[list[float]], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        gaussian(torch.zeros(2), torch.tensor(covariance))


def test_weights_must_sum_to_one() -> None:
    with pytest.raises(BadConfig, match="sum to 1"):
        mixture(torch.tensor([0.5, 0.4]), torch.zeros(2, 1), torch.ones(2, 1, 1))
