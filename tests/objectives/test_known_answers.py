"""Every objective on Gaussian data: expected loss, stationarity at its optimum, and training that ends there."""

import copy

import pytest
import torch

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.objectives import ddpm

DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
KINDS = ["eps", "x0", "v"]


def problem(kind: str) -> kit.Problem:
    return kit.Problem(paths.build(Diffusion(timesteps=30)), DATA, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_loss_equals_its_closed_form(kind: str) -> None:
    at = problem(kind)
    affine = at.optimum()
    with torch.no_grad():
        affine.gain += 0.1 * torch.randn(affine.gain.shape, generator=torch.Generator().manual_seed(0))
    for denoiser in (at.optimum(), affine):
        mean, error = kit.expected_loss(ddpm.build(ddpm.Options()), denoiser, at)
        assert mean == pytest.approx(at.simple_loss(denoiser), abs=4 * error)
        assert error < 0.02 * mean


@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_is_stationary_at_the_exact_denoiser_and_nowhere_near(kind: str) -> None:
    at, objective = problem(kind), ddpm.build(ddpm.Options())
    scores = kit.gradient_scores(objective, at.optimum(), at)
    assert float(scores.abs().max()) < 4.5  # 180 weights
    assert float(scores.square().mean()) < 2
    moved = copy.deepcopy(at.optimum())
    with torch.no_grad():
        moved.gain *= 1.3
    assert float(kit.gradient_scores(objective, moved, at).abs().max()) > 8


@pytest.mark.parametrize("kind", KINDS)
def test_training_with_ddpm_ends_at_the_exact_denoiser(kind: str) -> None:
    at = problem(kind)
    fitted, best = kit.fit(ddpm.build(ddpm.Options()), at), at.optimum()
    excess = at.simple_loss(fitted) - at.simple_loss(best)
    untrained = at.simple_loss(kit.Affine(at.path, at.kind, 2)) - at.simple_loss(best)
    assert 0 <= excess < 1e-2 * untrained
