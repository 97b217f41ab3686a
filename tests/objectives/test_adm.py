"""The hybrid loss, with and without input perturbation: closed forms, stationarity, what each term trains, presets."""

import copy
from math import log
from typing import Any

import pytest
import torch

from pipeline_lib import registry
from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import adm, adm_ip, ddpm, ddpm_ip
from tests.objectives.test_ddpm_reg import DOCS, differences, planned

COVARIANCE = torch.tensor([[0.3, 0.0], [0.0, 0.05]])
T = 30
DATA = gaussian(torch.tensor([0.3, -0.2]), COVARIANCE)
PATH = paths.build(Diffusion(timesteps=T))
UNIFORM: dict[str, Any] = {"time_sampling": "uniform", "lambda_vlb": 1 / T}


def problem(gamma: float = 0.0) -> kit.Problem:
    return kit.Problem(PATH, DATA, "eps", gamma)


def objective(gamma: float | None = None, **options: Any) -> adm.ADM:
    values = {**UNIFORM, **options}
    return adm.build(adm.Options(**values)) if gamma is None else adm_ip.build(adm_ip.Options(gamma=gamma, **values))


def posterior(t: int, gamma: float) -> tuple[torch.Tensor, float, float, float]:
    """What the bound sees at t: the mean square (D,) of c_x0 (x_0 - its best guess), c_x0, beta~ and beta."""
    now, before = (float(PATH.alpha_bar[k]) for k in (t, t - 1))
    beta, variance = 1 - now / before, COVARIANCE.diagonal().double()
    s = (1 - now) ** 0.5
    best = kit.Problem(PATH, DATA, "eps", gamma).optimum().gain[t].detach().diagonal().double()
    # x_0 - (y - s g (y - a m)) / a for y = a x_0 + s (eps + gamma xi), around the means
    noise = (1 - s * best) ** 2 * (1 - now) * (1 + gamma**2) / now
    left = (s * best) ** 2 * variance + noise
    weight = before**0.5 * beta / (1 - now)
    return weight**2 * left, weight, (1 - before) / (1 - now) * beta, beta


def at_optimum(gamma: float) -> kit.Affine:
    """The best affine mean, and at t > 1 the variance that is best with it: beta~ + the mean square of what is left."""
    affine = kit.Problem(PATH, DATA, "eps", gamma).optimum()
    with torch.no_grad():
        for t in range(2, T + 1):
            gap, _, small, large = posterior(t, gamma)
            affine.fraction[t] = ((small + gap) / small).log() / log(large / small)
    return affine


def fraction_scores(objective: adm.ADM, affine: kit.Affine, at: kit.Problem) -> torch.Tensor:
    """Mean of the gradient of the fractions in units of its standard error, for t in {2..22}: beyond, beta~ and beta
    are so near to each other that nothing is learned."""
    found = []
    for i in range(40):
        affine.zero_grad()
        kit.loss(objective, affine, at.batch(1000, i)).backward()
        found.append(affine.fraction.grad[2:23].flatten().double())
    stacked = torch.stack(found)
    return stacked.mean(0) / (stacked.std(0) / 40**0.5)


def test_the_best_variance_is_the_true_one() -> None:
    """Without perturbation: the covariance of q(x_{t-1} | x_t), so that the reverse chain is exact."""
    for t in range(2, T + 1):
        gap, weight, small, _ = posterior(t, 0.0)
        now = float(PATH.alpha_bar[t])
        v = COVARIANCE.diagonal().double()
        assert torch.allclose(small + gap, small + weight**2 * v * (1 - now) / (now * v + 1 - now), rtol=1e-5)


@pytest.mark.parametrize("gamma", [None, 0.6])
def test_it_is_stationary_at_its_optimum_in_mean_and_variance(gamma: float | None) -> None:
    at, loss = problem(gamma or 0.0), objective(gamma)
    for scores in (
        kit.gradient_scores(loss, at_optimum(gamma or 0.0), at),
        fraction_scores(loss, at_optimum(gamma or 0.0), at),
    ):
        assert float(scores.abs().max()) < 4.5
        assert float(scores.square().mean()) < 2
    moved = at_optimum(gamma or 0.0)
    with torch.no_grad():
        moved.fraction -= 0.1
    assert float(fraction_scores(loss, moved, at).min()) < -8


def test_perturbation_moves_the_optimum_of_mean_and_variance() -> None:
    """The bound too sees the perturbed input: its variance makes up for the noise that the mean cannot."""
    at, loss, exact = problem(0.6), objective(0.6), at_optimum(0.0)
    assert float(kit.gradient_scores(loss, exact, at).abs().max()) > 8
    assert float(fraction_scores(loss, exact, at).min()) < -6


@pytest.mark.parametrize("gamma", [None, 0.6])
def test_terms_equal_their_closed_forms(gamma: float | None) -> None:
    """All but the decoder term at t = 1, which tests/diffusion/test_bound.py has."""
    at, affine = problem(gamma or 0.0), at_optimum(gamma or 0.0)
    loss, bits = objective(gamma), 0.0
    for t in range(2, T + 1):
        gap, _, small, _ = posterior(t, gamma or 0.0)
        bits += float((0.5 * ((small + gap) / small).log()).mean()) / log(2)
    simple, vlb = [], []
    with torch.no_grad():
        for i in range(20):
            batch = at.batch(2000, i)
            terms = loss.terms(affine, batch)
            late = PATH.draw_times(batch.uniform(1)) > 1
            simple.append(terms["simple"].mean())
            vlb.append((terms["vlb"] * late).mean())
    for values, expected in ((simple, at.simple_loss(affine)), (vlb, bits)):
        mean, error = float(torch.stack(values).mean()), float(torch.stack(values).std()) / 20**0.5
        assert mean == pytest.approx(expected, abs=4 * error)
        assert error < 0.02 * mean


def test_at_the_released_weight_the_bound_counts_t_over_1000() -> None:
    """rescale_learned_sigmas: one term of the bound times T / 1000, beside the mean square with weight 1."""
    loss = adm.build(adm.Options())
    assert loss.weights["simple"] == 1
    assert loss.weights["vlb"] * 4000 == pytest.approx(4000 / 1000)


def test_the_mean_has_its_gradient_from_the_simple_loss_alone() -> None:
    at, affine = problem(), problem().optimum()
    with torch.no_grad():
        affine.gain *= 1.2
    gradients = []
    for loss in (objective(), ddpm.build(ddpm.Options())):
        affine.zero_grad()
        kit.loss(loss, affine, at.batch(400, 0)).backward()
        gradients.append(affine.gain.grad.clone())
    assert torch.equal(*gradients)


def test_simple_terms_are_those_of_the_controls_bit_for_bit() -> None:
    at, affine = problem(), problem().optimum()
    batch = at.batch(500, 1)
    simple = objective().terms(affine, batch)["simple"]
    assert torch.equal(simple, ddpm.build(ddpm.Options()).terms(affine, batch)["simple"])
    perturbed = objective(0.3).terms(affine, batch)["simple"]
    assert torch.equal(perturbed, ddpm_ip.build(ddpm_ip.Options(gamma=0.3)).terms(affine, batch)["simple"])


def test_without_perturbation_adm_ip_is_adm_bit_for_bit() -> None:
    """Ten losses at every t are soon seen: the later batches draw t by loss."""
    at, affine = problem(), at_optimum(0.0)
    one, other = (objective(gamma, time_sampling="loss-second-moment") for gamma in (None, 0.0))
    for step in range(6):
        batch = at.batch(600, step)
        terms, same = one.terms(affine, batch), other.terms(affine, batch)
        assert all(torch.equal(terms[name], same[name]) for name in terms)
    assert not torch.equal(terms["vlb"], objective(0.1).terms(affine, batch)["vlb"])


def test_times_by_loss_keep_the_mean_of_the_loss() -> None:
    at, affine = problem(), at_optimum(0.0)
    with torch.no_grad():
        affine.gain *= 1.2
    resampled = objective(time_sampling="loss-second-moment")
    kit.expected_loss(resampled, affine, at, batches=2)
    p = resampled.times.probabilities(T, torch.zeros(1))
    assert float(p.max() / p.min()) > 2  # far from uniform by now
    found = [kit.expected_loss(loss, affine, at) for loss in (resampled, objective())]
    assert found[0][0] == pytest.approx(found[1][0], abs=4 * (found[0][1] ** 2 + found[1][1] ** 2) ** 0.5)


def test_the_history_is_of_the_whole_loss_before_its_weight() -> None:
    at, affine = problem(), at_optimum(0.0)
    loss = objective(time_sampling="loss-second-moment")
    terms = loss.terms(affine, at.batch(9, 0))  # t is still uniform: the weights are 1
    whole = (terms["simple"] + terms["vlb"] / T).detach().double()
    assert loss.times.losses.max() == 0  # nothing is remembered before the whole batch is there
    loss.remember(loss.seen())
    assert sorted(loss.times.losses[loss.times.losses > 0].tolist()) == pytest.approx(sorted(whole.tolist()), rel=1e-6)


@pytest.mark.parametrize("name", ["adm", "adm-ip"])
def test_a_network_without_variance_is_refused(name: str) -> None:
    run = parse(Run, {"objective": {"name": name}, "diffusion": {"timesteps": 100}})
    module = registry.find("objectives", name)
    with pytest.raises(BadConfig, match=rf"^here: {name} trains a variance; set diffusion.learned_variance to true\.$"):
        module.check(module.Options(), run, "here")


@pytest.mark.parametrize("gamma", [-0.1, float("inf")])
def test_a_perturbation_that_cannot_be_is_one_sentence(gamma: float) -> None:
    with pytest.raises(BadConfig, match=r"^objective.gamma: input should be .*\.$"):
        parse(Run, {"objective": {"name": "adm-ip", "gamma": gamma}})


def test_the_presets_of_adm_ip_differ_in_gamma_alone() -> None:
    """0.1 in the paper, 0.15 in the released command for CIFAR-10."""
    assert differences(planned("adm-ip", "paper", {}), planned("adm-ip", "released", {})) == {
        "objective.gamma": (0.1, 0.15)
    }


@pytest.mark.parametrize(("preset", "gamma"), [("paper", 0.1), ("released", 0.15)])
def test_a_preset_and_its_control_differ_in_the_perturbation_alone(preset: str, gamma: float) -> None:
    assert differences(planned("adm", "paper", {}), planned("adm-ip", preset, {})) == {
        "objective.name": ("adm", "adm-ip"),
        "objective.gamma": (None, gamma),
    }


def test_the_preset_is_that_of_the_released_command() -> None:
    """CIFAR-10 in the repository of Ning et al. (2023)."""
    run = planned("adm", "paper", {"training": {"batch_size": 128}})
    assert run["diffusion"]["schedule"] == "cosine"
    assert run["diffusion"]["learned_variance"]
    expected = {"name": "adm", "channels": 128, "channel_mult": [1, 2, 2, 2], "res_blocks": 3, "dropout": 0.3}
    expected |= {"attention_resolutions": [16, 8], "head_channels": 32, "scale_shift_norm": True, "heads": None}
    assert run["network"] == expected | {"conditional": False}
    training = run["training"]
    assert (training["lr"], training["ema_decay"], training["warmup_steps"]) == (1e-4, 0.9999, 0)
    assert (training["grad_clip"], training["ema_warmup"], training["flip"]) == (None, False, True)


@pytest.mark.parametrize("name", ["ddpm-ip", "adm", "adm-ip"])
def test_the_docs_page_names_every_option_and_preset(name: str) -> None:
    module = registry.find("objectives", name)
    page = (DOCS / f"{name.replace('adm-ip', 'adm')}.md").read_text()
    known = set(module.PRESETS) | set(module.Options.model_fields)
    assert [word for word in known if f"`{word}`" not in page] == []


def test_perturbed_options_are_shared() -> None:
    """One gamma: what is said of it and what it may be is the same in both objectives."""
    fields = [copy.copy(module.Options.model_fields["gamma"]) for module in (ddpm_ip, adm_ip)]
    assert fields[0].description == fields[1].description
    assert fields[0].metadata == fields[1].metadata
