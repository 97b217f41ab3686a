"""Variance downscaling: laws of x_t that it restores, against Analytic-DPM, and what is infeasible."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline_lib.analytic import exact, sampler_kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoising, Prediction
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Sampler, analytic_dpm, ancestral, ddim
from pipeline_lib.samplers.corrections.variance_downscaling import Options, VarianceDownscaling, build, check, unknown

SPREAD, NFE = 0.04, 10  # variance of the data, steps
DATA = gaussian(torch.zeros(2), SPREAD * torch.eye(2))
PATH = paths.build(Diffusion(timesteps=100))
GRID = PATH.grid(NFE)
SAMPLERS: dict[str, tuple[Sampler, Any]] = {
    "fixed-small": (ancestral.sample, ancestral.Options(variance="fixed-small")),
    "fixed-large": (ancestral.sample, ancestral.Options(variance="fixed-large")),
    "ddim-0.7": (ddim.sample, ddim.Options(eta=0.7)),
    "ddim-0.9": (ddim.sample, ddim.Options(eta=0.9)),
}


def deviations(sampler: str, denoiser: Denoising, correction: VarianceDownscaling | None, spread: float) -> Tensor:
    """Moments of x_t at every noisy place less those of the forward law of data N(0, spread I), in standard errors."""
    sample, options = SAMPLERS[sampler]
    corrections = [correction] if correction else []

    def corrected(*given: Any, **more: Any) -> Tensor:
        return sample(*given, corrections=corrections, **more)

    done = sampler_kit.trial(corrected, options, denoiser, GRID, 2, 20_000)
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    laws = [exact.Normal(zero, (a**2 * spread + s**2) * eye) for a, s in zip(GRID.a, GRID.s, strict=True)]
    return sampler_kit.moment_scores(done, laws)[:-1]


def gain(step: Step, scale: float = 1.0, pull: float = 0.0) -> float:
    """The x_0 of the best denoiser whose eps is `scale` times as large and whose x_0 is drawn to 0, over x_t."""
    best = step.a * SPREAD / (step.a**2 * SPREAD + step.s**2)
    return (1 - pull) * (1 - scale * (1 - step.a * best)) / step.a


def of_error(scale: float = 1.0, pull: float = 0.0) -> Options:
    """The moments of its error on data N(0, SPREAD), by hand."""
    excess, cross, error = {}, {}, {}
    for step in GRID:
        t, g, total = round(step.t), gain(step, scale, pull), step.a**2 * SPREAD + step.s**2
        excess[t] = g**2 * total - SPREAD
        cross[t] = g * total - step.a * SPREAD
        error[t] = g**2 * total - 2 * g * step.a * SPREAD + SPREAD
    return Options(reading="measured", x0_excess=excess, x0_cross=cross, x0_error=error)


@pytest.mark.parametrize("error", [{}, {"scale": 1.02}, {"scale": 0.97}, {"pull": 0.1}], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_marginal_is_that_of_the_forward_process(sampler: str, error: dict[str, float]) -> None:
    """On isotropic Gaussian data whatever the denoiser gets wrong, since all steps are feasible."""
    correction = build(of_error(**error), PATH, NFE)
    denoiser = Erring(Oracle(PATH, DATA), **error)
    assert float(deviations(sampler, denoiser, correction, SPREAD).abs().max()) < 4.5
    assert correction.facts() == {"infeasible": 0.0}
    assert float(deviations(sampler, denoiser, None, SPREAD).abs().max()) > 10


class Guesses:
    """For data that are 0: x_0 is predicted with an error N(0, (error s_t)^2) that nothing else knows of."""

    path = PATH

    def __init__(self, error: float) -> None:
        self.error, self.draws = error, torch.Generator().manual_seed(5)

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        a, s = (c[:, None, None, None] for c in PATH.coefficients(t))
        return Prediction(x, a, s, self.error * s * torch.randn(x.shape, generator=self.draws), "x0")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_papers_reading_is_right_where_its_assumption_is(sampler: str) -> None:
    error = 0.05
    known = Options(x0_error={round(step.t): (error * step.s) ** 2 for step in GRID})
    correction = build(known, PATH, NFE)
    assert float(deviations(sampler, Guesses(error), correction, 0.0).abs().max()) < 4.5
    assert correction.facts() == {"infeasible": 0.0}
    assert float(deviations(sampler, Guesses(error), None, 0.0).max()) > 10  # too wide


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_the_papers_reading_takes_the_published_excess(eta: float) -> None:
    """(sqrt(abar_u) beta_{t|u} / (1 - abar_t) e_t)^2 of DDPM's one-step law; of DDIM, the weight of x_0 in its step."""
    correction = build(Options(x0_error={round(step.t): 1e-4 for step in GRID}), PATH, NFE)
    for step in list(GRID)[:-1]:
        abar_t, abar_u = step.a**2, step.a_next**2
        own = eta**2 * (1 - abar_u) / (1 - abar_t) * (1 - abar_t / abar_u)
        weight = abar_u**0.5 - ((1 - abar_u - own) * abar_t / (1 - abar_t)) ** 0.5
        if eta == 1:
            weight = abar_u**0.5 * (1 - abar_t / abar_u) / (1 - abar_t)
        assert own - correction.noise(step, own) == pytest.approx(weight**2 * 1e-4, rel=1e-6)


def test_the_papers_reading_makes_the_best_denoiser_too_narrow() -> None:
    known = Options(x0_error=of_error().x0_error)
    plain, corrected = (
        deviations("fixed-small", Oracle(PATH, DATA), one, SPREAD)[1:, [2, 4]]  # variances
        for one in (None, build(known, PATH, NFE))
    )
    assert bool((corrected < plain).all())
    assert float(plain.min()) < -10


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_for_the_best_denoiser_it_is_the_variance_of_analytic_dpm(eta: float) -> None:
    gamma = {round(step.t): step.s**2 / (step.a**2 * SPREAD + step.s**2) for step in GRID}
    options = analytic_dpm.Options(eta=eta, gamma=gamma, clip_last_pixels=None)
    correction = build(of_error(), PATH, NFE)
    for step in list(GRID)[:-1]:
        own = eta**2 * step.posterior_variance
        assert correction.noise(step, own) == pytest.approx(analytic_dpm.variance(step, options, False), rel=1e-9)


def chains(name: str, correction: VarianceDownscaling | None) -> list[Tensor]:
    sample, options = SAMPLERS.get(name, (ddim.sample, ddim.Options(eta=0)))
    if name == "analytic":
        sample, options = analytic_dpm.sample, analytic_dpm.Options(gamma={round(step.t): 0.9 for step in GRID})

    def corrected(*given: Any, **more: Any) -> Tensor:
        return sample(*given, corrections=[correction] if correction else [], **more)

    return sampler_kit.trial(corrected, options, Oracle(PATH, DATA), GRID, 2, 5).x


@pytest.mark.parametrize("reading", ["paper", "measured"])
def test_without_an_error_every_bit_stays(reading: str) -> None:
    none = {round(step.t): 0.0 for step in GRID}
    correction = build(Options(reading=reading, x0_error=none, x0_excess=none, x0_cross=none), PATH, NFE)
    for name in ("fixed-small", "ddim-0.7"):
        for x, y in zip(chains(name, correction), chains(name, None), strict=True):
            assert torch.equal(x, y)


def test_an_error_above_the_noise_is_infeasible() -> None:
    """DDIM at eta 0 has none to give up, and makes its own steps; a share of the others' steps has too little."""
    error = build(Options(x0_error={round(step.t): 0.01 for step in GRID}), PATH, NFE)
    assert all(torch.allclose(x, y) for x, y in zip(chains("ode", error), chains("ode", None), strict=True))
    assert error.facts() == {"infeasible": 1.0}
    large = {round(step.t): 0.01 if step.index < 3 else 100.0 for step in GRID}
    some = build(Options(x0_error=large), PATH, NFE)
    chains("fixed-small", some)
    assert some.facts() == {"infeasible": 6 / 9}


def test_it_sets_the_noise_of_analytic_dpm_too() -> None:
    """Whose DDPM form has the mean of ancestral sampling."""
    correction = build(of_error(scale=1.02), PATH, NFE)
    pairs = zip(chains("analytic", correction), chains("fixed-small", correction), strict=True)
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in pairs)


def test_what_is_unknown_is_told() -> None:
    assert unknown(Options()) == ["x0_error"]
    assert unknown(Options(reading="measured", x0_cross={1: 0.0})) == ["x0_excess"]
    with pytest.raises(BadConfig, match="knows no x0_error at t = 100; let the rule `moments` measure it"):
        build(Options(x0_error={3: 0.1}), PATH, NFE).noise(GRID.step(0), 0.1)
    with pytest.raises(BadConfig, match=r"^one: variance-downscaling is for diffusion\.path vp \(it is edm\)\.$"):
        check(Options(), Diffusion(path="edm"), 5, "one")
