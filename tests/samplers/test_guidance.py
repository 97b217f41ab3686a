"""Classifier guidance on a mixture whose class posteriors are known: at scale 1 it gives the conditional denoiser."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline_lib.analytic.mixtures import Mixture, mixture
from pipeline_lib.analytic.oracle import Oracle
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.samplers import Draw, ancestral, clip_x0
from pipeline_lib.samplers._guidance import guided
from pipeline_lib.samplers.corrections.classifier_guidance import Options, build

PATH = paths.build(Diffusion(timesteps=50))
MEANS = torch.tensor([[-0.6, 0.2, 0.1, 0.0], [0.5, 0.4, -0.3, 0.1], [0.1, -0.7, 0.2, 0.3]], dtype=torch.float64)
SPREAD = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
COVARIANCES = SPREAD[:, None, None] * torch.eye(4, dtype=torch.float64)
DATA = mixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), MEANS, COVARIANCES)
LABELS = torch.arange(30) % 3
SHAPE = (1, 2, 2)


def coefficients(t: float) -> tuple[float, float]:
    a, s = PATH.coefficients(torch.tensor([t]))
    return float(a), float(s)


def posterior(x: Tensor, t: Tensor) -> Tensor:
    """ln p(component | x_t): the classes are the components of the mixture."""
    law = DATA.noised(*coefficients(float(t[0])))
    single = [
        Mixture(torch.ones(1), law.means[k : k + 1], law.values[k : k + 1], law.vectors[k : k + 1]) for k in range(3)
    ]
    joint = torch.stack([one.log_density(x.flatten(1).double()) for one in single], 1) + DATA.weights.log()
    return joint.log_softmax(1)


class Conditional:
    """The exact denoiser of the component that each label names."""

    path = PATH

    def __init__(self) -> None:
        parts = zip(DATA.means, DATA.values, DATA.vectors, strict=True)
        self.of = [Oracle(PATH, Mixture(torch.ones(1), *(v[None] for v in part))) for part in parts]

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        assert labels is not None
        every = [one(x, t) for one in self.of]
        x0 = torch.stack([p.x0 for p in every])[labels, torch.arange(len(x))]
        return Prediction(x, every[0].a, every[0].s, x0, "x0")


def noised(step: int) -> Tensor:
    return torch.randn(len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("place", [0, 20, 40, 49])
def test_at_scale_one_it_gives_the_conditional_denoiser(place: int) -> None:
    """Bayes' rule: grad ln p(x_t | y) = grad ln p(x_t) + grad ln p(y | x_t)."""
    step, x = PATH.grid(50, "uniform").step(place), noised(place)
    correct = guided(posterior, LABELS, 1.0, batch=7)
    with torch.no_grad():
        found = correct(Oracle(PATH, DATA)(x, step.t), step)
    wanted = Conditional()(x, step.t, LABELS)
    assert torch.allclose(found.eps, wanted.eps, atol=1e-5)
    assert not torch.allclose(found.eps, Oracle(PATH, DATA)(x, step.t).eps, atol=1e-3)


def test_eps_moves_in_proportion_to_the_scale() -> None:
    step, x = PATH.grid(50, "uniform").step(25), noised(0)
    plain = Oracle(PATH, DATA)(x, step.t)
    moved = [guided(posterior, LABELS, scale, batch=30)(plain, step).eps - plain.eps for scale in (0.0, 0.5, 2.0)]
    assert float(moved[0].abs().max()) == 0
    assert torch.allclose(4 * moved[1], moved[2])


def test_a_guided_chain_is_the_conditional_chain() -> None:
    """Ancestral sampling of the unconditional denoiser with guidance, against that of the conditional one."""
    x = Noise(0).normal(4, torch.arange(30), 0, SHAPE).double()
    options, grid = ancestral.Options(variance="fixed-small"), PATH.grid(50, "uniform")
    draw = Draw(Noise(0), torch.arange(30))
    correct = guided(posterior, LABELS, 1.0, batch=30)
    with torch.no_grad():
        found = ancestral.sample(Oracle(PATH, DATA), grid, x, draw, options, corrections=[correct])
        wanted = ancestral.sample(Conditional(), grid, x, draw, options, LABELS)
    assert torch.allclose(found, wanted, atol=1e-4)
    near = (found.flatten(1)[:, None] - MEANS).square().sum(2) / SPREAD + 4 * SPREAD.log()
    assert float((near.argmin(1) == LABELS).double().mean()) > 0.9


def stepped(form: str, variance: str, place: int, corrections: tuple[Any, ...] = ()) -> tuple[Tensor, Tensor]:
    """x_t at a place of a grid of 10 steps, and what one step of the exact denoiser makes of it."""
    x, grid, seen = noised(place), PATH.grid(10, "uniform").below(place), []
    options = Options(scale=0.7, classifier="a/b", form=form)
    guidance = build(options, PATH, 10, Known(), LABELS, 7)
    sampler = ancestral.Options(variance=variance)
    with torch.no_grad():
        ancestral.sample(
            Oracle(PATH, DATA),
            grid,
            x,
            Draw(Noise(0), torch.arange(30)),
            sampler,
            corrections=[guidance, *corrections],
            observe=lambda step, x, prediction: seen.append(x),
        )
    return x, seen[1]


class Known:
    """The exact classifier in place of a trained one."""

    log_probabilities = staticmethod(posterior)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize("place", [0, 5, 8])
def test_guidance_of_the_mean_moves_it_by_the_variance_times_the_gradient(
    place: int, variance: str, clipped: bool
) -> None:
    """Algorithm 1, written out; x_0 is clipped before, where it is."""
    corrections = (clip_x0,) if clipped else ()
    x, found = stepped("mean", variance, place, corrections)
    step = PATH.grid(10, "uniform").step(place)
    sigma2 = step.posterior_variance if variance == "fixed-small" else step.forward_variance
    leaf = x.clone().requires_grad_()
    chosen = posterior(leaf, torch.tensor([step.t]))[torch.arange(30), LABELS].sum()
    (slope,) = torch.autograd.grad(chosen, leaf)
    x0 = Oracle(PATH, DATA)(x, step.t).x0
    x0 = x0.clamp(-1, 1) if clipped else x0
    z = Draw(Noise(0), torch.arange(30)).normal(Stream.REVERSE, 0, SHAPE)  # the first of this grid
    wanted = step.c_x0 * x0 + step.c_xt * x + 0.7 * sigma2 * slope + sigma2**0.5 * z
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("place", [0, 5, 8])
def test_both_forms_agree_but_for_the_variance_and_the_root_of_alpha(place: int) -> None:
    """Guidance of eps moves the mean by w (beta_t / alpha_t^(1/2)) grad ln p, whatever the variance."""
    step = PATH.grid(10, "uniform").step(place)
    moved = {}
    for form in ("eps", "mean"):
        x, after = stepped(form, "fixed-large", place)
        base = step.c_x0 * Oracle(PATH, DATA)(x, step.t).x0 + step.c_xt * x
        z = Draw(Noise(0), torch.arange(30)).normal(Stream.REVERSE, 0, SHAPE)
        moved[form] = after - base - step.forward_variance**0.5 * z
    assert float(moved["mean"].abs().max()) > 1e-3
    assert torch.allclose(moved["mean"], step.a / step.a_next * moved["eps"], atol=1e-5)
