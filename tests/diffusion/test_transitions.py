"""One-step coefficients against Ho et al. (2020), and rollouts against the sampler."""

import pytest
import torch

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.diffusion.transitions import VARIANCES, Transitions, rollout
from pipeline_lib.samplers import Draw, ancestral

PATH = paths.build(Diffusion(timesteps=20))
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.05, 0.02], [0.02, 0.03]]))
SHAPE = (2, 1, 1)


def denoiser() -> kit.Affine:
    return kit.Problem(PATH, DATA, "eps").optimum()


def start(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("kind", ["fixed-small", "fixed-large"])
def test_coefficients_are_those_of_the_betas(schedule: str, kind: str) -> None:
    path = paths.build(Diffusion(timesteps=50, schedule=schedule))
    t = torch.arange(1, 51)
    now, before = path.alpha_bar[1:], path.alpha_bar[:-1]
    alpha = now / before
    beta = 1 - alpha
    c_x0, c_xt, std = Transitions(path, VARIANCES[kind]).at(t)
    variance = beta * (1 - before) / (1 - now) if kind == "fixed-small" else torch.where(t == 1, 0.0, beta)
    assert torch.allclose(c_x0.double(), before.sqrt() * beta / (1 - now), rtol=1e-6)
    assert torch.allclose(c_xt.double(), alpha.sqrt() * (1 - before) / (1 - now), rtol=1e-6)
    assert torch.allclose(std.double() ** 2, variance, rtol=1e-6)


def test_coefficients_are_those_of_the_sampling_grid_in_any_order() -> None:
    steps = {int(step.t): step for step in PATH.grid(20)}
    t = torch.tensor([7, 1, 20, 7])
    found = torch.stack(Transitions(PATH, VARIANCES["fixed-large"]).at(t), 1)
    for row, time in zip(found, t.tolist(), strict=True):
        step = steps[time]
        std = 0.0 if time == 1 else step.forward_variance**0.5
        assert torch.equal(row, torch.tensor([step.c_x0, step.c_xt, std], dtype=torch.float64).float())


@pytest.mark.parametrize("kind", ["fixed-small", "fixed-large"])
def test_a_rollout_over_all_steps_is_the_ancestral_sampler(kind: str) -> None:
    """The same chains, image by image, when the noise is the sampler's."""
    draw, x = Draw(Noise(3), torch.arange(5)), start(5)
    sampled = ancestral.sample(denoiser(), PATH.grid(20), x, draw, ancestral.Options(variance=kind))
    whole = torch.full((5,), 20)
    rolled = rollout(
        denoiser(),
        x,
        whole,
        whole,
        Transitions(PATH, VARIANCES[kind]),
        lambda rows, left: draw.normal(Stream.REVERSE, 20 - left, SHAPE)[rows],
    )
    assert torch.allclose(rolled, sampled, atol=1e-5)


class Counting:
    """A denoiser that notes t of every image in every call."""

    def __init__(self) -> None:
        self.inside, self.path, self.calls = denoiser(), PATH, []

    def __call__(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
        self.calls.append(t.tolist())
        return self.inside(x, t, labels)


def roll(
    at: object,
    s: list[int],
    length: list[int],
    rows: list[int],
    gradient: str = "chain",
    first: torch.Tensor | None = None,
) -> torch.Tensor:
    """Images number `rows`, each from its own s by its own number of steps."""
    index, noise = torch.tensor(rows), Noise(0)
    return rollout(
        at,
        start(9)[index],
        torch.tensor(s)[index],
        torch.tensor(length)[index],
        Transitions(PATH, VARIANCES["fixed-large"]),
        lambda rows, left: noise.normal(Stream.GROUP_NOISE, index[rows], 0, SHAPE, left),
        gradient=gradient,
        first=first,
    )


def test_an_image_goes_its_own_way_whatever_is_in_the_batch() -> None:
    s, length = [20, 3, 9, 9, 5, 12, 2, 8, 16], [4, 3, 1, 2, 5, 1, 2, 3, 2]
    counting = Counting()
    together = roll(counting, s, length, list(range(9)))
    alone = torch.cat([roll(denoiser(), s, length, [i]) for i in range(9)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert len(counting.calls) == max(length)  # one call for each step of the longest
    expected = sorted(s[i] - j for i in range(9) for j in range(length[i]))
    assert sorted(int(t) for call in counting.calls for t in call) == expected


def test_what_was_predicted_before_is_not_asked_again() -> None:
    s, length = [20, 3, 9, 9, 5, 12, 2, 8, 16], [4, 3, 1, 2, 5, 1, 2, 3, 2]
    counting, whole = Counting(), list(range(9))
    known = denoiser()(start(9), torch.tensor(s)).x0
    together = roll(counting, s, length, whole, first=known)
    assert torch.allclose(together, roll(denoiser(), s, length, whole), atol=1e-6)
    assert len(counting.calls) == max(length) - 1
    expected = sorted(s[i] - j for i in range(9) for j in range(1, length[i]))
    assert sorted(int(t) for call in counting.calls for t in call) == expected


@pytest.mark.parametrize("gradient", ["chain", "last"])
def test_gradients_reach_every_call_or_the_last(gradient: str) -> None:
    affine = denoiser()
    roll(affine, [8, 9], [3, 2], [0, 1], gradient).square().sum().backward()
    reached = affine.gain.grad.abs().sum((1, 2)).nonzero().flatten().tolist()
    assert reached == ([6, 7, 8, 9] if gradient == "chain" else [6, 8])
