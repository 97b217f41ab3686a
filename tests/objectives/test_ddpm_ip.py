"""Input perturbation: the same as DDPM at gamma 0, the closed form of its shifted optimum, options and presets."""

import copy
from typing import Any

import pytest
import torch

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm, ddpm_ip
from pipeline_lib.objectives.ddpm_ip import Options
from tests.objectives.test_ddpm_reg import FULL, differences, planned

DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
PATH = paths.build(Diffusion(timesteps=30))
GAMMA = 0.8  # larger than in use, so that the shift is far above the noise of a test
KINDS = ["eps", "x0", "v"]


def problem(kind: str = "eps", gamma: float = GAMMA) -> kit.Problem:
    return kit.Problem(PATH, DATA, kind, gamma)


@pytest.mark.parametrize("target", ["eps", "rescaled"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_perturbation_it_is_ddpm_bit_for_bit(kind: str, target: str) -> None:
    at = problem(kind)
    affine, batch = at.optimum(), at.batch(500, 3)
    plain = ddpm.build(ddpm.Options()).terms(affine, batch)["simple"]
    same = ddpm_ip.build(Options(gamma=0.0, target=target)).terms(affine, batch)["simple"]
    assert torch.equal(plain, same)
    assert not torch.equal(plain, ddpm_ip.build(Options(gamma=0.1, target=target)).terms(affine, batch)["simple"])


def test_times_and_eps_are_those_of_the_control_and_xi_is_independent_of_them() -> None:
    at = problem()
    batch, t = at.batch(20_000, 0), torch.full((20_000,), 9.0)
    x, eps = ddpm.build(ddpm.Options()).noised(PATH, batch, t)
    y, same = ddpm_ip.build(Options(gamma=GAMMA)).noised(PATH, batch, t)
    assert torch.equal(eps, same)
    xi = ((y - x) / (float(1 - PATH.alpha_bar[9]) ** 0.5 * GAMMA)).flatten(1)
    assert torch.allclose(torch.cov(xi.T), torch.eye(2), atol=0.04)
    cross = (xi.T @ torch.cat((eps.flatten(1), batch.x0.flatten(1)), 1)) / 20_000
    assert float(cross.abs().max()) < 0.04


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_equals_its_closed_form(kind: str) -> None:
    at, objective = problem(kind), ddpm_ip.build(Options(gamma=GAMMA))
    exact = problem(kind, gamma=0.0)
    for denoiser in (at.optimum(), exact.optimum()):
        mean, error = kit.expected_loss(objective, denoiser, at)
        assert mean == pytest.approx(at.simple_loss(denoiser), abs=4 * error)
        assert error < 0.02 * mean
    assert at.simple_loss(exact.optimum()) > 1.01 * at.simple_loss(at.optimum())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_stationary_at_its_own_optimum_and_not_at_the_exact_denoiser(kind: str) -> None:
    at, objective = problem(kind), ddpm_ip.build(Options(gamma=GAMMA))
    scores = kit.gradient_scores(objective, at.optimum(), at)
    assert float(scores.abs().max()) < 4.5  # 180 weights
    assert float(scores.square().mean()) < 2
    assert float(kit.gradient_scores(objective, problem(kind, gamma=0.0).optimum(), at).abs().max()) > 8


def test_the_optimum_finds_less_noise_by_the_closed_form() -> None:
    """gain = s / (a^2 v + s^2 (1 + gamma^2)) for data of variance v: smaller than that of the exact denoiser."""
    data = gaussian(torch.zeros(1), torch.tensor([[0.04]]))
    for t in (1, 10, 30):
        a2, s = float(PATH.alpha_bar[t]), float(1 - PATH.alpha_bar[t]) ** 0.5
        gain = float(kit.Problem(PATH, data, "eps", 0.1).optimum().gain[t].detach())
        assert gain == pytest.approx(s / (a2 * 0.04 + s**2 * 1.01), rel=1e-5)
        assert gain < float(kit.Problem(PATH, data, "eps").optimum().gain[t].detach())


def test_docs_quote_the_shrinkage_where_the_noise_hides_the_data() -> None:
    """1 / (1 + gamma^2), the limit of the ratio of both gains as t grows: docs/methods/ddpm-ip.md."""
    for gamma, factor in ((0.1, 0.9901), (0.15, 0.9780)):
        shifted, exact = (kit.Problem(PATH, DATA, "eps", g).optimum().gain[30].diagonal() for g in (gamma, 0.0))
        assert (shifted / exact).tolist() == pytest.approx([factor] * 2, abs=1e-4)


def scaled(factor: float) -> kit.Affine:
    affine = copy.deepcopy(problem().optimum())
    with torch.no_grad():
        affine.gain *= factor
        affine.offset *= factor
    return affine


def test_the_control_has_all_the_noise_as_its_target() -> None:
    """Regression on (eps + gamma xi) / sqrt(1 + gamma^2): sqrt(1 + gamma^2) times that on eps."""
    objective = ddpm_ip.build(Options(gamma=GAMMA, target="rescaled"))
    scores = kit.gradient_scores(objective, scaled((1 + GAMMA**2) ** 0.5), problem())
    assert float(scores.abs().max()) < 4.5
    assert float(scores.square().mean()) < 2
    assert float(kit.gradient_scores(objective, scaled(1.0), problem()).abs().max()) > 8


def test_training_ends_at_its_own_optimum() -> None:
    at = problem()
    fitted, best = kit.fit(ddpm_ip.build(Options(gamma=GAMMA)), at, steps=600), at.optimum()
    excess = at.simple_loss(fitted) - at.simple_loss(best)
    shift = at.simple_loss(problem(gamma=0.0).optimum()) - at.simple_loss(best)
    assert 0 <= excess < 0.3 * shift


def run_of(objective: dict[str, Any], **diffusion: Any) -> Run:
    return parse(Run, {"objective": {"name": "ddpm-ip", **objective}, "diffusion": {"timesteps": 100, **diffusion}})


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_a_perturbation_that_cannot_be_is_one_sentence(gamma: float) -> None:
    with pytest.raises(BadConfig, match=r"^objective.gamma: input should be .*\.$"):
        run_of({"gamma": gamma})


@pytest.mark.parametrize("objective", ["ddpm", "ddpm-ip", "ddpm-reg"])
def test_a_variance_that_nothing_trains_is_refused(objective: str) -> None:
    values = {"learned_variance": True, "timesteps": 100}
    with pytest.raises(BadConfig, match=f"^methods.new.variants.one: {objective} does not train a variance"):
        planned(objective, "paper", {**FULL, "diffusion": values})


def test_the_presets_differ_in_gamma_alone() -> None:
    """0.1 in the paper, 0.15 in the released commands for CIFAR-10."""
    assert differences(planned("ddpm-ip", "paper"), planned("ddpm-ip", "released")) == {"objective.gamma": (0.1, 0.15)}


@pytest.mark.parametrize(("preset", "gamma"), [("paper", 0.1), ("released", 0.15)])
def test_a_preset_and_its_control_differ_in_the_perturbation_alone(preset: str, gamma: float) -> None:
    assert differences(planned("ddpm", "paper"), planned("ddpm-ip", preset)) == {
        "objective.name": ("ddpm", "ddpm-ip"),
        "objective.gamma": (None, gamma),
        "objective.target": (None, "eps"),
    }
