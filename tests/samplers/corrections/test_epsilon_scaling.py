"""Epsilon scaling against its published readings and against a closed form."""

import math

import pytest
import torch
from torch import Tensor

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, clip_x0, ddim
from pipeline_lib.samplers.corrections.epsilon_scaling import Options, build, check, factors

PATH = paths.build(Diffusion(timesteps=100))
STEP = PATH.grid(4).step(1)
X, EPS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)


def prediction() -> Prediction:
    return Prediction(X, torch.tensor(STEP.a), torch.tensor(STEP.s), EPS, "eps")


def test_lambda_of_one_changes_nothing() -> None:
    given = prediction()
    assert build(Options(), PATH, 4)(given, STEP) is given


def test_lambda_is_linear_in_the_steps_that_are_left() -> None:
    """(k, b) = (0.0025, 1) of CIFAR-10 at 20 steps: 1 at the last call, 1.0475 at the first; mean b + k (n - 1) / 2."""
    found = factors(Options(k=0.0025, b=1.0), 20)
    assert found[-1] == 1
    assert found[0] == pytest.approx(1.0475)
    assert sum(found) / 20 == pytest.approx(1 + 0.0025 * 19 / 2)
    assert factors(Options(factors=[1.1, 1.2]), 2) == [1.1, 1.2]


def test_the_whole_prediction_is_scaled_before_x0_is_clipped() -> None:
    """As released for ADM: x_0 = clip((x - s eps / lambda) / a), and the eps of DDIM is that of the clipped x_0."""
    scaled = build(Options(b=1.5), PATH, 4)(prediction(), STEP)
    assert torch.allclose(scaled.eps, EPS / 1.5)
    x0 = ((X - STEP.s * EPS / 1.5) / STEP.a).clamp(-1, 1)
    clipped = clip_x0(scaled, STEP)
    assert torch.allclose(clipped.x0, x0)
    assert torch.allclose(clipped.eps, (X - STEP.a * x0) / STEP.s, atol=1e-6)


def test_x0_alone_is_scaled_as_released_for_ldm() -> None:
    scaled = build(Options(b=1.5, scaled="x0"), PATH, 4)(prediction(), STEP)
    assert torch.equal(scaled.eps, EPS)
    assert torch.allclose(scaled.x0, (X - STEP.s * EPS / 1.5) / STEP.a, atol=1e-6)
    assert torch.equal(clip_x0(scaled, STEP).eps, EPS)


def test_a_learned_variance_is_left_alone() -> None:
    given = prediction()
    given.fraction = torch.rand_like(X)
    for which in ("eps", "x0"):
        assert build(Options(b=1.5, scaled=which), PATH, 4)(given, STEP).fraction is given.fraction


@pytest.mark.parametrize(("factor", "ratio"), [(1.01, 1.0231), (0.99, 0.9770)])
def test_norm_of_eps_in_the_ode_of_a_point_at_zero(factor: float, ratio: float) -> None:
    """Data that are 0, sigma as time: x = sigma eps, so that d ln x / d ln sigma = 1 / lambda, and the predicted eps
    grows over its training norm by (T / t)^(1 - 1 / lambda): 1.023 at t = 8, T = 80, lambda = 1.01."""
    path = paths.build(Diffusion(path="edm", sigma_max=80.0, sigma_min=8.0))
    norms: list[Tensor] = []

    def zero(x: Tensor, t: float, labels: None = None) -> Prediction:
        return Prediction(x, torch.tensor(1.0), torch.tensor(t), torch.zeros_like(x), "x0")

    zero.path = path
    start = 80 * Noise(0).normal(0, torch.arange(5), 0, (1, 4, 4))
    grid = path.grid(2000)
    ddim.sample(
        zero,
        grid,
        start,
        Draw(Noise(0), torch.arange(5)),
        ddim.Options(),
        corrections=[build(Options(b=factor), path, len(grid))],
        observe=lambda step, x, _: norms.append((x / step.t).flatten(1).norm(dim=1)),
    )
    assert float((norms[-1] / norms[0]).mean()) == pytest.approx(10 ** (1 - 1 / factor), rel=1e-4)
    assert 10 ** (1 - 1 / factor) == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"b": 0}, "lambda of epsilon-scaling is 0 at step 0 of 4"),
        ({"b": 1, "k": -0.5}, "lambda of epsilon-scaling is -0.5 at step 0 of 4"),
        ({"b": math.nan}, r"^b: input should be a finite number \(it is nan\)"),
        ({"factors": []}, "^factors: list should have at least 1 item"),
        ({"factors": [1.0, 1.1]}, "2 factors, but there are 4 steps"),
        ({"factors": [1.0] * 4, "b": 1.1}, "either factors, or b and k"),
    ],
)
def test_impossible_factors_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        check(parse(Options, options), Diffusion(), 4, "sampling.one")
