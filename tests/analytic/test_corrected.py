"""Corrections on exact chains: against other exact chains, against sampled ones, and their harm."""

import pytest
import torch

from pipeline_lib.analytic import corrected, exact, sampler_kit
from pipeline_lib.analytic.problems import Study
from pipeline_lib.config.models import Analytic, Imperfection, Problem, Setting
from pipeline_lib.samplers import ddim
from pipeline_lib.samplers.corrections import epsilon_scaling
from tests.analytic.test_problems import problem

ISOTROPIC = {"data": [{"mean": [0.3, -0.2], "covariance": [0.04, 0.04]}]}
FACTORS = [0.98, 1.0, 1.02]


def study(**values: object) -> Study:
    return Study(problem(**values), 0)


def rows(one: Study, eta: float, nfe: int, **error: float) -> dict[tuple[str, float | None], corrected.Row]:
    found = corrected.rows(one, Imperfection(**error), eta, nfe, FACTORS)
    return {(row["correction"], row.get("factor")): row for row in found}


def test_ancestral_chains_are_those_of_the_exact_stage() -> None:
    one = study()
    setting = Setting(variance="fixed-small", error=Imperfection(bias=0.1))
    last = one.links(setting, one.path.grid(20))[-1]
    found = rows(one, 1.0, 20, bias=0.1)["none", None]
    assert found["kl"] == pytest.approx(exact.cumulative_error(last), rel=1e-9)
    assert found["kl_noisy"] == pytest.approx(exact.kl(last.p_t, last.q_t), rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_sampled_chains_have_the_exact_law(eta: float) -> None:
    """Of an erring denoiser with epsilon scaling, by the suite's own sampler and correction."""
    one, error = study(), Imperfection(scale=1.05)
    grid = one.path.grid(8)
    correct = epsilon_scaling.build(epsilon_scaling.Options(b=1.03), one.path, 8)
    denoiser = one.denoiser(Setting(error=error))

    def sample(*given: object, **more: object) -> torch.Tensor:
        return ddim.sample(*given, corrections=[correct], **more)

    laws = sampler_kit.laws(one.prior, grid, exact.erring(one.linear(error), 1 / 1.03), corrected.Chain(eta))
    done = sampler_kit.trial(sample, ddim.Options(eta=eta), denoiser, grid, 2, 20_000)
    assert float(sampler_kit.moment_scores(done, laws).abs().max()) < 4.5


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_right_lambda_undoes_a_scaled_eps_and_another_does_not(eta: float) -> None:
    one = study()
    perfect, scaled = rows(one, eta, 20), rows(one, eta, 20, scale=1.02)
    assert scaled["epsilon-scaling", 1.02]["kl"] == pytest.approx(perfect["none", None]["kl"], rel=1e-9)
    assert scaled["epsilon-scaling", 1.0]["kl"] == pytest.approx(scaled["none", None]["kl"], rel=1e-9)
    assert abs(scaled["epsilon-scaling", 0.98]["kl"] / perfect["none", None]["kl"] - 1) > 0.1


@pytest.mark.parametrize("error", [{}, {"scale": 1.02}, {"pull": 0.05}], ids=str)
def test_the_measured_error_makes_the_last_noisy_law_exact_on_isotropic_data(error: dict[str, float]) -> None:
    found = rows(study(**ISOTROPIC), 1.0, 10, **error)
    assert found["variance-downscaling, measured", None]["infeasible"] == 0
    kept = found["variance-downscaling, measured", None]["kl_noisy"]
    assert kept < 0.01 * found["none", None]["kl_noisy"]
    if not error.get("pull"):  # which also moves the mean
        assert kept < 1e-8


def test_the_papers_reading_narrows_chains_that_are_narrow_already() -> None:
    found = rows(study(), 1.0, 10)
    none, paper = found["none", None], found["variance-downscaling, paper", None]
    assert paper["spread"] < none["spread"] < 1
    assert paper["kl"] > none["kl"]
    ode = rows(study(), 0.0, 10)
    assert ode["variance-downscaling, paper", None]["infeasible"] == 1
    assert ode["variance-downscaling, paper", None]["kl"] == ode["none", None]["kl"]


def test_a_path_without_discrete_steps_has_no_variance_downscaling() -> None:
    kinds = {kind for kind, _ in rows(study(diffusion={"path": "edm"}), 0.0, 5)}
    assert kinds == {"none", "epsilon-scaling"}


def test_moments_of_the_error_are_those_of_samples() -> None:
    one, error = study(), Imperfection(scale=1.1, bias=0.2)
    grid = one.path.grid(3)
    found = corrected.of_error(one, grid, one.linear(error))
    x0, eps = one.forward(100_000)
    for step in grid:
        x = step.a * x0 + step.s * eps
        predicted = one.denoiser(Setting(error=error))(x, step.t).x0.double().flatten(1)
        flat, x = x0.double().flatten(1), x.double().flatten(1)
        e, scale = predicted - flat, float(predicted.var(0).mean())
        expected = {
            "x0_error": e.square().mean(),
            "x0_excess": (predicted.var(0) - flat.var(0)).mean(),
            "x0_cross": ((e - e.mean(0)) * (x - x.mean(0))).mean(),
        }
        for name, value in expected.items():
            assert found[name][round(step.t)] == pytest.approx(float(value), rel=0.03, abs=0.02 * scale + 1e-3)


def test_more_steps_than_a_path_has_are_refused() -> None:
    one = Problem.model_validate(problem().model_dump())
    with pytest.raises(ValueError, match=r"corrections.nfe: 200 is more than the 100 steps of the path of one"):
        Analytic(problems={"one": one}, corrections={"nfe": [200]})
