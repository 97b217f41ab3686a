"""Every objective on Gaussian data: expected loss, stationarity at its optimum, and training that ends there."""

import copy

import pytest
import torch
from scipy.optimize import minimize_scalar

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.transitions import VARIANCES, Variance
from pipeline_lib.objectives import Objective, ddpm, ddpm_reg
from tests.objectives import closed_forms

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


VARIANCE = 0.01  # of one-dimensional data, mean 0
LENGTH_SCALE = 0.15
RHO = 0.15  # most of the weight near clean data, where a wrong variance shows most


def line(timesteps: int = 25) -> kit.Problem:
    data = gaussian(torch.zeros(1), torch.tensor([[VARIANCE]]))
    return kit.Problem(paths.build(Diffusion(timesteps=timesteps)), data, "eps")


def exact_variance(step: Step) -> float:
    """The variance of q(x_{t-1} | x_t) for this data."""
    return step.posterior_variance + step.c_x0**2 * VARIANCE * step.s**2 / (step.a**2 * VARIANCE + step.s**2)


REVERSE: dict[str, Variance] = {**VARIANCES, "exact": exact_variance}


def regularised(statistic: str = "u", lambda_nll: float = 0.0) -> ddpm_reg.Options:
    return ddpm_reg.Options(
        lambda_nll=lambda_nll,
        lambda_reg=1.0,
        estimator="sampled",
        rho=RHO,
        kernel="gaussian",
        bandwidth=LENGTH_SCALE,
        statistic=statistic,
    )


def gradients(objective: Objective, at: kit.Problem, group: int, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients (batches, T) at the exact denoiser with respect to gain and offset, in units of the gain."""
    found, affine = [], at.optimum()
    for i in range(batches):
        affine.zero_grad()
        kit.loss(objective, affine, at.batch(6000, i, group=group)).backward()
        found.append(torch.stack((affine.gain.grad[1:, 0, 0], affine.offset.grad[1:, 0])).double())
    gain, offset = torch.stack(found).unbind(1)
    return gain, offset


def scores(gradient: torch.Tensor) -> torch.Tensor:
    """Mean over batches in units of its standard error."""
    return gradient.mean(0) / (gradient.std(0) / len(gradient) ** 0.5)


@pytest.mark.parametrize("lambda_nll", [0.0, 0.8])
def test_ddpm_reg_is_stationary_at_the_exact_denoiser_with_the_exact_reverse_variance(lambda_nll: float) -> None:
    at, objective = line(), ddpm_reg.DDPMReg(regularised(lambda_nll=lambda_nll), exact_variance)
    both = torch.cat([scores(g) for g in gradients(objective, at, 20, 60)])
    assert float(both.abs().max()) < 4.5  # 50 weights
    assert float(both.square().mean()) < 2


@pytest.mark.parametrize(
    ("reverse", "statistic", "direction"),
    [("fixed-large", "u", 1), ("fixed-small", "u", -1), ("exact", "v", 1), ("exact", "u", 0)],
)
def test_ddpm_reg_moves_the_optimum_by_the_closed_form(reverse: str, statistic: str, direction: int) -> None:
    """eps predicted as slope times the exact eps, for all t: the best slope, and the slope of the loss at 1."""
    at, half = line(), 10
    closed = closed_forms.Line(at, 5, RHO, LENGTH_SCALE)

    def expected(slope: float) -> float:
        return closed.regulariser(slope, REVERSE[reverse], half if statistic == "v" else None)

    best = float(minimize_scalar(expected, bounds=(0.5, 1.5), method="bounded", options={"xatol": 1e-7}).x)
    derivative = (expected(1.001) - expected(0.999)) / 0.002
    objective = ddpm_reg.DDPMReg(regularised(statistic), REVERSE[reverse])
    gain, _ = gradients(objective, at, 2 * half, 60)
    along = gain @ at.optimum().gain[1:, 0, 0].detach().double()
    mean, error = float(along.mean()), float(along.std()) / len(along) ** 0.5
    assert mean == pytest.approx(derivative, abs=4 * error)
    if direction:
        assert direction * (best - 1) > 0.01
        assert -direction * mean > 5 * error  # descending moves the slope to where the closed form puts it
    else:
        assert best == pytest.approx(1, abs=1e-5)


def test_both_closed_forms_of_the_regulariser_agree() -> None:
    at, options = line(), regularised()
    affine = at.optimum()
    with torch.no_grad():
        affine.gain *= 1.1
    for reverse in REVERSE.values():
        slow = closed_forms.regulariser(options, affine, at, reverse)
        assert slow == pytest.approx(closed_forms.Line(at, 5, RHO, LENGTH_SCALE).regulariser(1.1, reverse), rel=1e-4)


@pytest.mark.parametrize(
    ("timesteps", "reverse", "slope"),
    [
        (1000, "fixed-large", 1.0089),
        (1000, "fixed-small", 0.9898),
        (1000, "exact", 1.0),
        (25, "fixed-large", 1.0945),
        (25, "fixed-small", 0.9464),
    ],
)
def test_docs_quote_how_far_fixed_variance_moves_the_slope(timesteps: int, reverse: str, slope: float) -> None:
    """Length scale: the median of distances at each t; quoted in docs/methods/ddpm-reg.md."""
    closed = closed_forms.Line(line(timesteps), 5, 0.003, None)
    found = minimize_scalar(lambda slope: closed.regulariser(slope, REVERSE[reverse]), bounds=(0.9, 1.15))
    assert float(found.x) == pytest.approx(slope, abs=1e-4)


def test_v_statistics_of_64_images_like_too_small_a_variance() -> None:
    """With the variance v of the rolled out half free and that of the forward half 1, under the median length scale."""
    scale = 2 * closed_forms.MEDIAN**2

    def expected(v: float) -> float:  # what depends on v: mean k(x, x') with its diagonal, and the cross term
        within, across = ((1 + spread / scale) ** -0.5 for spread in (2 * v, 1 + v))
        return within + (1 - within) / 64 - 2 * across

    assert minimize_scalar(expected, bounds=(0.5, 1.5)).x == pytest.approx(0.97, abs=0.002)
