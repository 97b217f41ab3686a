"""The sampler of EDM: laws on Gaussian data, its ODE in closed form, second implementations, calls, churn, refusals."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import log2, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.analytic import exact, sampler_kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, Prediction
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, clip_x0, edm
from pipeline_lib.samplers._stage import Counted, draw
from tests.config.test_plan import changed, plan

COVARIANCE = torch.tensor([[0.05, 0.02, -0.01], [0.02, 0.03, 0.0], [-0.01, 0.0, 0.08]])
DATA = gaussian(torch.tensor([0.3, -0.2, 0.1]), COVARIANCE)
CONFIG = Diffusion(path="edm", prediction="edm")
PATH = paths.build(CONFIG)
CHURN = {"s_churn": 5.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
OPTIONS = {
    f"{name}-{order}": {"order": order, **more} for order in (1, 2) for name, more in (("ode", {}), ("sde", CHURN))
}
INDEX, SHAPE = torch.arange(3), (2, 4, 4)


def update(options: edm.Options, steps: int) -> sampler_kit.Update:
    """One step on an affine denoiser, from Algorithm 2 of Karras et al. (2022)."""
    eye = torch.eye(3, dtype=torch.float64)

    def slope(step: Step, sigma: float, denoiser: exact.Linear) -> tuple[Tensor, Tensor]:
        gain, offset = denoiser(replace(step, t=sigma, s=sigma, a=1.0))
        return (eye - gain) / sigma, -offset / sigma

    def one(step: Step, denoiser: exact.Linear) -> sampler_kit.Affine:
        top = float("inf") if options.s_max is None else options.s_max
        gamma = min(options.s_churn / steps, sqrt(2) - 1) if options.s_min <= step.t <= top else 0.0
        sigma, end = step.t * (1 + gamma), step.t_next
        gain, offset = slope(step, sigma, denoiser)
        matrix, constant = eye + (end - sigma) * gain, (end - sigma) * offset
        if options.order == 2 and end:
            other, shift = slope(step, end, denoiser)
            constant = (end - sigma) / 2 * (offset + other @ constant + shift)
            matrix = eye + (end - sigma) / 2 * (gain + other @ matrix)
        added = options.s_noise**2 * (sigma**2 - step.t**2)
        return matrix, constant, added * matrix @ matrix.T

    return one


def calls(options: edm.Options) -> sampler_kit.Calls:
    def times(grid: Grid) -> Sequence[float]:
        found = []
        for step in grid:
            found += [step.t] if options.order == 1 or step.is_last else [step.t, step.t_next]
        return found

    return times


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (1.02, 0.03)])
@pytest.mark.parametrize("name", OPTIONS)
def test_it_has_the_exact_law_at_every_place(name: str, scale: float, bias: float) -> None:
    options, grid = edm.Options(**OPTIONS[name]), PATH.grid(12)
    linear = exact.erring(exact.exact_denoiser(DATA), scale, bias)
    expected = sampler_kit.laws(exact.prior(PATH, 3), grid, linear, update(options, 12))
    done = sampler_kit.trial(edm.sample, options, Erring(Oracle(PATH, DATA), bias, scale), grid, 3, 20_000)
    assert float(sampler_kit.moment_scores(done, expected).abs().max()) < 4.5


@pytest.mark.parametrize(("order", "count"), [(1, 6), (2, 11)])
def test_it_calls_the_network_where_it_says(order: int, count: int) -> None:
    options = edm.Options(order=order)
    done = sampler_kit.trial(edm.sample, options, Oracle(PATH, DATA), PATH.grid(6), 3, 5)
    assert sampler_kit.visit_faults(done, calls(options)) == []
    assert len(done.calls) == count == 2 * 6 - 1 if order == 2 else 6
    other = edm.Options(order=3 - order)
    assert sampler_kit.visit_faults(done, calls(other)) != []


def affine_end(options: edm.Options, grid: Grid) -> exact.Normal:
    linear = exact.exact_denoiser(DATA)
    return sampler_kit.laws(exact.marginal(DATA, 1.0, grid.s[0]), grid, linear, update(options, len(grid)))[-1]


@pytest.mark.parametrize("order", [1, 2])
def test_errors_fall_with_the_order(order: int) -> None:
    """Of the sampler itself, against the solution of the ODE for Gaussian data: each principal axis is scaled by
    sqrt(v / (v + sigma_max^2)), v the variance along it."""
    path = paths.build(Diffusion(path="edm", prediction="edm", sigma_min=1e-3, sigma_max=3.0))
    values, axes = torch.linalg.eigh(COVARIANCE.double())
    x = 3 * Noise(0).normal(Stream.PRIOR, torch.arange(200), 0, (3, 1, 1))
    mean = DATA.moments()[0]
    scaled = ((x.flatten(1).double() - mean) @ axes) * (values / (values + 9)).sqrt()
    solution = mean + scaled @ axes.T
    found = []
    for steps in (16, 32, 64):
        options, grid = edm.Options(order=order), path.grid(steps)
        end = edm.sample(Oracle(path, DATA), grid, x, Draw(Noise(0), torch.arange(200)), options)
        found.append(float((end.flatten(1) - solution).square().mean().sqrt()))
    rates = [log2(found[i] / found[i + 1]) for i in (0, 1)]
    assert all(abs(rate - order) < 0.25 for rate in rates), rates


def test_churn_with_the_exact_denoiser_keeps_the_marginal() -> None:
    """As steps grow, the law of x_0 tends to that of the data, as it does not with more noise than is due."""
    covariance = COVARIANCE.double()

    def gap(steps: int, noise: float) -> float:
        end = affine_end(edm.Options(s_churn=20.0, s_noise=noise), PATH.grid(steps))
        return float((end.covariance - covariance).norm() / covariance.norm())

    assert gap(256, 1.0) < gap(64, 1.0) / 8
    assert gap(256, 1.0) < 3e-3
    assert gap(256, 1.02) > 0.03


class Network(torch.nn.Module):
    """A fixed nonlinear function of all pixels and of the condition."""

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        phase = condition[:, None, None, None]
        return torch.tanh(0.7 * x.roll(1, -1) - 0.4 * x + phase.sin()) + 0.3 * x.mean((1, 2, 3), keepdim=True)


def ours(steps: int, **options: object) -> list[Tensor]:
    seen = []
    start = PATH.prior_std * Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    end = edm.sample(
        Denoiser(Network(), PATH, CONFIG),
        PATH.grid(steps),
        start,
        Draw(Noise(0), INDEX),
        edm.Options(**options),
        observe=lambda step, x, prediction: seen.append(x),
    )
    return [*seen, end]


def by_hand(steps: int, order: int, churn: float, low: float, high: float, inflation: float) -> list[np.ndarray]:
    """Algorithm 2 in float64 numpy, with its own grid and preconditioning."""
    rho, first, last, data = 7, 80.0, 0.002, 0.5
    ramp = np.arange(steps) / (steps - 1)
    sigmas = [*(first ** (1 / rho) + ramp * (last ** (1 / rho) - first ** (1 / rho))) ** rho, 0.0]

    def derivative(x: np.ndarray, sigma: float) -> np.ndarray:
        scale = (sigma**2 + data**2) ** -0.5
        given = torch.from_numpy(scale * x), torch.full((len(x),), np.log(sigma) / 4, dtype=torch.float64)
        denoised = (data * scale) ** 2 * x + sigma * data * scale * Network()(*given).numpy()
        return (x - denoised) / sigma

    x = first * Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE).double().numpy()
    seen = [x]
    for i, (sigma, end) in enumerate(pairwise(sigmas)):
        gamma = min(churn / steps, np.sqrt(2) - 1) if low <= sigma <= high else 0
        raised = sigma + gamma * sigma
        z = Noise(0).normal(Stream.REVERSE, INDEX, i, SHAPE).double().numpy()
        x = x + np.sqrt(raised**2 - sigma**2) * inflation * z
        d = derivative(x, raised)
        euler = x + (end - raised) * d
        last_step = i == steps - 1
        x = euler if order == 1 or last_step else x + (end - raised) * (d + derivative(euler, end)) / 2
        seen.append(x)
    return seen


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("churn", [(0.0, 0.0, 1e9, 1.0), (8.0, 0.05, 50.0, 1.003), (60.0, 0.0, 1e9, 0.9)])
def test_trajectories_are_those_of_the_algorithm(order: int, churn: tuple[float, float, float, float]) -> None:
    strength, low, high, inflation = churn
    found = ours(18, order=order, s_churn=strength, s_min=low, s_max=high, s_noise=inflation)
    for x, y in zip(found, by_hand(18, order, *churn), strict=True):
        assert float((x.double() - torch.from_numpy(y)).abs().max()) <= 2e-5 * max(float(np.abs(y).max()), 1)


def test_euler_is_that_of_diffusers() -> None:
    """Without churn: with it, diffusers' scheduler is given a prediction of x before the noise is added."""
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_edm_euler")
    scheduler = schedulers.EDMEulerScheduler()
    scheduler.set_timesteps(18)
    x = PATH.prior_std * Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    for t, y in zip(scheduler.timesteps, ours(18, order=1)[1:], strict=True):
        x = scheduler.step(Network()(scheduler.scale_model_input(x, t), t.expand(3)), t, x).prev_sample
        assert float((x - y).abs().max()) <= 2e-5 * max(float(y.abs().max()), 1)


def test_heun_is_that_of_diffusers() -> None:
    """On the grid of EDM, given predictions of x_0."""
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_heun_discrete")
    scheduler, grid, found = schedulers.HeunDiscreteScheduler(prediction_type="sample"), PATH.grid(18), ours(18)
    sigmas = [grid.times[0], *(t for t in grid.times[1:-1] for _ in range(2)), 0.0]
    scheduler.set_timesteps(18)
    scheduler.sigmas, scheduler._step_index = torch.tensor(sigmas), 0
    denoiser, x = Denoiser(Network(), PATH, CONFIG), found[0]
    for i, sigma in enumerate(sigmas[:-1]):
        x = scheduler.step(denoiser(x, sigma).x0, 0, x).prev_sample
        if i % 2 or i == len(sigmas) - 2:
            y = found[i // 2 + 1]
            assert float((x - y).abs().max()) <= 2e-5 * max(float(y.abs().max()), 1)


@pytest.mark.parametrize("order", [1, 2])
def test_s_noise_does_nothing_without_churn(order: int) -> None:
    plain = ours(9, order=order)
    for more in ({"s_noise": 1.1}, {"s_noise": 0.0}, {"s_churn": 5.0, "s_min": 100.0}, {"s_churn": 5.0, "s_max": 1e-3}):
        assert all(torch.equal(x, y) for x, y in zip(plain, ours(9, order=order, **more), strict=True))
    assert not torch.equal(plain[-1], ours(9, order=order, s_churn=5.0)[-1])


def test_corrections_act_on_every_evaluation_with_the_step_it_is_made_for() -> None:
    steps, seen = [], []

    def count(prediction: Prediction, step: Step) -> Prediction:
        steps.append((step.index, round(float(prediction.s.flatten()[0]), 3)))
        return clip_x0(prediction, step)

    def observe(step: Step, x: Tensor, prediction: Prediction) -> None:
        seen.append(float(prediction.x0.abs().max()))

    grid, x = PATH.grid(3), 80 * torch.ones(1, 1, 1, 1)
    draws = Draw(Noise(0), torch.arange(1))
    edm.sample(Denoiser(Network(), PATH, CONFIG), grid, x, draws, edm.Options(), None, [count], observe)
    t = [round(t, 3) for t in grid.times]
    assert steps == [(0, t[0]), (0, t[1]), (1, t[1]), (1, t[2]), (2, t[2])]
    assert max(seen) <= 1


def test_labels_reach_every_evaluation() -> None:
    given = []

    def labelled(x: Tensor, t: float, labels: Tensor | None = None) -> Prediction:
        given.append(labels)
        return Denoiser(Network(), PATH, CONFIG)(x, t)

    labels = torch.tensor([4, 2, 0])
    x = 80 * Noise(0).normal(Stream.PRIOR, INDEX, 0, SHAPE)
    edm.sample(labelled, PATH.grid(4), x, Draw(Noise(0), INDEX), edm.Options(), labels)
    assert len(given) == 7
    assert all(one is labels for one in given)


def sampling(nfe: int, **options: object) -> Sampling:
    return Sampling(sampler={"name": "edm", **options}, nfe=[nfe], images=2, clip_x0=False)


@pytest.mark.parametrize(("order", "nfe", "steps"), [(2, 35, 18), (2, 1, 1), (1, 35, 35), (1, 36, 36)])
def test_nfe_counts_calls(order: int, nfe: int, steps: int) -> None:
    counted = Counted(Oracle(PATH, DATA), 50)
    assert sampling(nfe, order=order).steps(nfe) == steps
    draw(counted, sampling(nfe, order=order), nfe, torch.arange(4), (3, 1, 1), 50)
    assert counted.images / 4 == nfe


def test_the_prior_of_pfgm_is_its_own() -> None:
    """One call at sigma_max sees 80 eps, eps with the radius of PFGM++."""
    path, seen = paths.build(Diffusion(path="pfgm", prediction="edm", extra_dimensions=2)), []
    draw(Oracle(path, DATA), sampling(1), 1, torch.arange(6), (3, 1, 1), 6, observe=lambda s, x, p: seen.append(x))
    assert torch.equal(seen[0], 80 * path.eps(Noise(0), Stream.PRIOR, torch.arange(6), 0, (3, 1, 1)))
    assert not torch.equal(seen[0], 80 * Noise(0).normal(Stream.PRIOR, torch.arange(6), 0, (3, 1, 1)))


class TwoPoints:
    """The posterior mean under Student t noise for data at +1 (share 0.3) and -1, in all of 4 pixels."""

    share = 0.3

    def __init__(self, freedom: int) -> None:
        self.path = paths.build(Diffusion(path="pfgm", prediction="edm", extra_dimensions=freedom))
        self.freedom = freedom

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        sigma = torch.as_tensor(t, dtype=torch.float32).expand(len(x))[:, None, None, None]
        r2, power = self.freedom * sigma.flatten() ** 2, -(4 + self.freedom) / 2
        up, down = ((x.double() - sign).square().sum((1, 2, 3)) + r2 for sign in (1, -1))
        odds = self.share / (1 - self.share) * (up / down) ** power
        x0 = (odds - 1) / (odds + 1)
        return Prediction(x, torch.ones_like(sigma), sigma, x0.float()[:, None, None, None].expand_as(x), "x0")


@pytest.mark.parametrize("freedom", [2, 64])
def test_the_ode_of_pfgm_brings_its_prior_to_the_data(freedom: int) -> None:
    """Two points with their shares, from a prior that is heavy-tailed and does not know them."""
    x = draw(TwoPoints(freedom), sampling(101), 101, torch.arange(8000), (4, 1, 1), 8000)
    assert float((x.abs() - 1).abs().quantile(0.99)) < 0.02
    share = float((x.mean((1, 2, 3)) > 0).float().mean())
    assert share == pytest.approx(0.3, abs=4 * sqrt(0.21 / 8000) + 0.01)  # at sigma_max the mean is not yet nothing


def planned(path: str, sampler: dict[str, object], nfe: int) -> None:
    values = copy.deepcopy(changed("sampling/ancestral", {"sampler": sampler, "nfe": [nfe], "images": 100}))
    if path == "edm":
        method = {"objective": "edm", "variants": {"paper": {"preset": "paper", "run": {"objective": {"augment": 0}}}}}
        values["methods"], values["base"]["diffusion"] = {"edm": method}, {}
    plan(values)


def test_plans_refuse_what_cannot_be_sampled() -> None:
    planned("edm", {"name": "edm"}, 35)
    planned("edm", {"name": "edm", "order": 1}, 5000)
    with pytest.raises(BadConfig, match=r"^sampling.ancestral: nfe is 36, but Heun's .* odd number, or order 1\.$"):
        planned("edm", {"name": "edm"}, 36)
    with pytest.raises(BadConfig, match=r"^sampling.ancestral cannot sample ddpm/paper: sampler edm is for .*\.$"):
        planned("vp", {"name": "edm"}, 35)
