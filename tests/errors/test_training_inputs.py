"""The law of training-time inputs: the exact mixture of q(x_t) and rollouts, in the shares of the network calls."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline_lib.analytic import exact, kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run, Training
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.diffusion.transitions import VARIANCES
from pipeline_lib.errors import training_inputs
from pipeline_lib.errors.forward import MEASURED, ForwardSamples
from pipeline_lib.errors.training_inputs import TrainingInputs, shares
from pipeline_lib.objectives import consistent_dm
from pipeline_lib.objectives.ddpm_reg import Options, depths
from tests.objectives.closed_forms import forward_law, rolled_law

T, BATCH, GROUP = 10, 64, 16
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.05, 0.02], [0.02, 0.03]]))
PROBLEM = kit.Problem(paths.build_vp(Diffusion(timesteps=T)), DATA, "eps")
GRID = PROBLEM.path.grid(T)
COUNT = 20_000


class Forward(ForwardSamples):
    """Images of known Gaussian law, not rounded to 256 levels."""

    def __init__(self, count: int = COUNT) -> None:
        self.x0 = DATA.sample(Noise(5), count).float()[:, :, None, None]
        self.eps = Noise(6).normal(Stream.FORWARD, torch.arange(count), MEASURED, self.x0.shape[1:])
        self.labels = None


def erring() -> kit.Affine:
    """A denoiser whose rollouts drift away from q(x_t)."""
    affine = PROBLEM.optimum()
    with torch.no_grad():
        affine.gain.mul_(0.8)
        affine.offset.add_(0.1)
    return affine


def inputs(denoiser: kit.Affine, batch: int = 7000, count: int = COUNT, **options: Any) -> TrainingInputs:
    """The law that `of_run` finds for a run of ddpm-reg."""
    objective = {"name": "ddpm-reg", "bootstrap_length": 3, **options}
    run = Run(
        diffusion=Diffusion(timesteps=T),
        network={"channels": 8},
        objective=objective,
        training=Training(batch_size=BATCH, mmd_group=GROUP),
    )
    law = training_inputs.of_run({"run": run.model_dump(mode="json")}, Forward(count), denoiser, 0, batch)
    assert law is not None
    return law


def mixed(weights: np.ndarray, laws: list[exact.Normal]) -> exact.Normal:
    """Mean and covariance of a mixture."""
    shares = torch.from_numpy(weights)
    mean = shares @ torch.stack([law.mean for law in laws])
    second = torch.stack([law.covariance + torch.outer(law.mean, law.mean) for law in laws])
    return exact.Normal(mean, torch.einsum("k,kij->ij", shares, second) - torch.outer(mean, mean))


def expected(denoiser: kit.Affine, t: int, options: Options) -> exact.Normal:
    """The exact mixture at t."""
    calls = depths(options, T, BATCH, GROUP)[t]
    standard = exact.Normal(torch.zeros(2).double(), torch.eye(2).double())
    rolled = []
    for j in range(min(3, T - t + 1)):
        start = forward_law(PROBLEM, t + j) if options.warm_start else standard
        rolled.append(rolled_law(denoiser, start, t + j, j, VARIANCES[options.variance]))
    simple = BATCH / T
    weights = np.array([simple, calls[0] - simple, *calls[1 : len(rolled)]])
    return mixed(weights / weights.sum(), [forward_law(PROBLEM, t), *rolled])


def drawn(law: TrainingInputs, t: int) -> torch.Tensor:
    """x_t (M,C,H,W)."""
    x = law.on(GRID, T - t)
    assert x is not None
    return x


def agrees(x: torch.Tensor, law: exact.Normal) -> bool:
    flat, spread = x.flatten(1).double(), 4.5 / COUNT**0.5
    size = law.covariance.diagonal()
    near = (flat.mean(0) - law.mean).abs() <= spread * size.sqrt()
    return bool(near.all()) and torch.allclose(torch.cov(flat.T), law.covariance, atol=2 * spread * float(size.max()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variance": "fixed-small", "rollout": "exact"},
        {"warm_start": False},
        {"estimator": "sampled", "rho": 0.3},
    ],
)
def test_the_samples_have_the_law_of_the_exact_mixture(options: dict[str, Any]) -> None:
    denoiser = erring()
    law = inputs(denoiser, **options)
    for t in (1, 4, 9, 10):
        x = drawn(law, t)
        assert agrees(x, expected(denoiser, t, Options(bootstrap_length=3, **options)))
        if t < 9:
            assert not agrees(x, forward_law(PROBLEM, t))


def test_the_exact_denoiser_with_the_exact_variance_leaves_the_marginal_law() -> None:
    """Reverse steps of q itself lead from q(x_s) to q(x_t): here of data at one point, where beta~_t is exact."""
    data = gaussian(torch.tensor([0.3, -0.2]), 1e-12 * torch.eye(2))
    problem = kit.Problem(PROBLEM.path, data, "x0")
    forward = Forward(4000)
    forward.x0 = data.sample(Noise(5), 4000).float()[:, :, None, None]
    split = shares(depths(Options(bootstrap_length=3), T, BATCH, GROUP), np.zeros(T))
    law = TrainingInputs(split, forward, problem.optimum(), VARIANCES["fixed-small"], 0, 4000)
    x = drawn(law, 5)
    assert not torch.equal(x, forward.on(GRID, 5))
    scaled = (x - GRID.a[5] * forward.x0) / GRID.s[5]
    assert abs(float(scaled.mean())) < 4.5 / 8000**0.5
    assert float(scaled.var()) == pytest.approx(1, abs=4.5 * (2 / 8000) ** 0.5)


@pytest.mark.parametrize("warm_start", [True, False])
def test_shares_are_those_of_the_network_calls(warm_start: bool) -> None:
    law, options = inputs(erring(), warm_start=warm_start), Options(bootstrap_length=3, warm_start=warm_start)
    calls = depths(options, T, BATCH, GROUP)
    for t in range(1, T + 1):
        found = torch.bincount(law.components(t), minlength=4).numpy() / COUNT
        wanted = calls[t] / calls[t].sum()
        simple = BATCH / T / calls[t].sum()
        assert found[0] == pytest.approx(wanted[0] if warm_start else simple, abs=4.5 * (0.25 / COUNT) ** 0.5)
        assert found[0] + found[1] == pytest.approx(wanted[0], abs=4.5 * (0.25 / COUNT) ** 0.5)
        assert found[2:] == pytest.approx(wanted[1:], abs=4.5 * (0.25 / COUNT) ** 0.5)
        assert (wanted[1:] == 0).tolist() == (found[2:] == 0).tolist()


def test_calls_without_reverse_steps_are_the_forward_samples_bit_for_bit() -> None:
    calls = np.zeros((T + 1, 3))
    calls[1:, 0] = 5.0
    forward = Forward(50)
    law = TrainingInputs(shares(calls, calls[1:, 0]), forward, erring(), VARIANCES["fixed-large"], 0, 8)
    for t in range(1, T + 1):
        assert torch.equal(drawn(law, t), forward.on(GRID, T - t))
    assert law.on(GRID, T) is None


def test_a_sample_keeps_its_place_and_noise_at_every_t_and_in_every_batch() -> None:
    law, other = (inputs(erring(), batch, count=400) for batch in (400, 7))
    order = law.place.argsort()
    for t in (2, 5):
        assert (law.components(t)[order].diff() >= 0).all()
        assert torch.equal(law.components(t), other.components(t))
        torch.testing.assert_close(drawn(law, t), drawn(other, t))
    near, far = (drawn(law, t).flatten() for t in (4, 5))
    assert float(torch.corrcoef(torch.stack((near, far)))[0, 1]) > 0.9  # a path that is smooth in t


def test_the_random_numbers_are_no_others_numbers() -> None:
    law = inputs(erring(), count=400)
    assert not torch.equal(law.place, inputs(erring(), count=401).forward.eps[:400, 0, 0, 0])
    assert torch.equal(law.place, inputs(erring(), count=401).place[:400])
    assert float(law.place.mean()) == pytest.approx(0.5, abs=4.5 / (12 * 400) ** 0.5)


def test_rollouts_of_a_conditional_network_are_given_the_labels_of_their_images() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Listening:
        path = PROBLEM.path

        def __call__(self, x: torch.Tensor, t: torch.Tensor | float, labels: torch.Tensor | None = None) -> Prediction:
            assert labels is not None
            seen.append((x, labels))
            return erring()(x, t)

    forward = Forward(300)
    forward.labels = torch.arange(300)
    calls = np.zeros((T + 1, 2))
    calls[1:T, 1] = 1.0
    law = TrainingInputs(
        shares(calls, np.zeros(T)), forward, Listening(), VARIANCES["fixed-large"], 0, 100, conditional=True
    )
    law.on(GRID, 4)
    assert torch.cat([labels for _, labels in seen]).tolist() == list(range(300))
    start = torch.cat([x for x, _ in seen])
    assert torch.allclose(start, forward.on(GRID, 3), atol=1e-6)  # one step above


def law_of(objective: dict[str, Any], denoiser: kit.Affine) -> Any:
    run = Run(diffusion=Diffusion(timesteps=T), objective=objective, training=Training(batch_size=BATCH))
    return training_inputs.of_run({"run": run.model_dump(mode="json")}, Forward(), denoiser, 0, 7000)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
def test_consistent_diffusion_is_trained_at_the_ends_of_its_chains_too(variance: str) -> None:
    """A third of its inputs at t is q(x_t), two thirds are n steps away from it; at t = 1 are those that fell short."""
    denoiser, steps = erring(), 3
    law = law_of({"name": "consistent-dm", "chain_steps": steps, "variance": variance}, denoiser)

    def rolled(t: int, length: int) -> exact.Normal:
        return rolled_law(denoiser, forward_law(PROBLEM, t + length), t + length, length, VARIANCES[variance])

    for t in (4, 7):
        known = mixed(np.array([1, 2]) / 3, [forward_law(PROBLEM, t), rolled(t, steps)])
        assert agrees(drawn(law, t), known)
        assert not agrees(drawn(law, t), forward_law(PROBLEM, t))
    at_one = [forward_law(PROBLEM, 1), *(rolled(1, length) for length in (1, 2, 3))]
    assert agrees(drawn(law, 1), mixed(np.array([3, 2, 2, 2]) / 9, at_one))
    assert agrees(drawn(law, T), forward_law(PROBLEM, T))


def test_training_sees_as_many_images_as_it_counts() -> None:
    """3 an image: D_0, and the ends of both chains."""
    calls = consistent_dm.depths(consistent_dm.Options(chain_steps=4), T, BATCH, None)
    assert calls.sum() == pytest.approx(3 * BATCH)


@pytest.mark.parametrize("name", ["ddpm-ip", "adm-ip"])
def test_input_perturbation_trains_on_more_noise(name: str) -> None:
    """y_t = a x_0 + s (eps + gamma xi)."""
    run = {"name": name, "gamma": 0.5}
    law = training_inputs.of_run(
        {"run": {"objective": parse(Run, {"objective": run}).objective}}, Forward(), erring(), 0, 8
    )
    for t in (2, 8):
        plain = forward_law(PROBLEM, t)
        more = torch.eye(2, dtype=torch.float64) * 0.25 * (1 - float(PROBLEM.path.alpha_bar[t]))
        assert agrees(drawn(law, t), exact.Normal(plain.mean, plain.covariance + more))
        assert not agrees(drawn(law, t), plain)
    assert law.on(GRID, T) is None  # of clean data there is nothing to train on


def test_without_perturbation_and_on_other_paths_there_is_no_second_law() -> None:
    assert law_of({"name": "ddpm-ip", "gamma": 0.0}, erring()) is None
    edm = Run(diffusion=Diffusion(path="edm", prediction="edm"), objective={"name": "consistent-dm"})
    assert training_inputs.of_run({"run": edm.model_dump(mode="json")}, Forward(50), erring(), 0, 8) is None


def test_an_objective_that_never_sees_its_own_samples_has_no_second_law() -> None:
    run = Run(objective={"name": "ddpm"}).model_dump(mode="json")
    assert training_inputs.of_run({"run": run}, Forward(50), erring(), 0, 8) is None
