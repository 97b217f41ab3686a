"""Time shift: which times it finds, and where each of its readings puts them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers import Draw, ddim
from pipeline_lib.samplers._stage import draw
from pipeline_lib.samplers.corrections.time_shift import Options, build, check

T, SHAPE = 100, (1, 6, 6)
PATH = paths.build(Diffusion(timesteps=T))
READINGS = ["paper", "released", "released-adm"]


class Network:
    """A fixed function of x and t that remembers the times at which it was called."""

    path = PATH

    def __init__(self) -> None:
        self.times: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor | float, labels: None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        self.times.append(t)
        a, s = (c[:, None, None, None] for c in PATH.coefficients(t))
        return Prediction(x, a, s, torch.tanh(x + s * x.roll(1, -1)), "eps")


def run(nfe: int, options: Options | None, spread: float = 1.0) -> tuple[Tensor, list[Tensor], list[Step]]:
    """x_0 of four chains, the times of the calls, and the steps that were made."""
    index, network, steps = torch.arange(4), Network(), []
    each = torch.linspace(0.5, 1.0, 4)[:, None, None, None]  # images whose variances differ
    start = spread * each * Noise(0).normal(0, index, 0, SHAPE)
    corrections = [build(options, PATH, nfe)] if options else []
    end = ddim.sample(
        network,
        PATH.grid(nfe),
        start,
        Draw(Noise(0), index),
        ddim.Options(eta=0.5),
        corrections=corrections,
        observe=lambda step, x, _: steps.append(step),
    )
    return end, network.times, steps


def with_variance(levels: list[float]) -> Tensor:
    x = torch.randn(len(levels), *SHAPE, generator=torch.Generator().manual_seed(0))
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x * (torch.tensor(levels) / x.flatten(1).var(1)).sqrt()[:, None, None, None] + 0.3  # a mean is no variance


@pytest.mark.parametrize("middle", [3.0, 40.0, 99.0])
def test_the_nearest_level_in_the_window_is_found(middle: float) -> None:
    """Against a search in numpy; the window ends at 1 and T, and 1 - alpha_bar of a time finds that time."""
    alpha_bar = PATH.alpha_bar.numpy()
    wanted = [float(1 - alpha_bar[t]) for t in (1, 2, 38, 41, 44, 60, 97, 100)]
    found = build(Options(window=8, cutoff=0), PATH, 10).nearest(with_variance(wanted), middle)
    window = np.arange(max(1, int(middle) - 4), min(T, int(middle) + 4) + 1)
    expected = [window[np.abs(level - (1 - alpha_bar[window])).argmin()] for level in wanted]
    assert found.tolist() == expected


@pytest.mark.parametrize("reading", READINGS)
def test_a_cutoff_of_T_leaves_every_bit(reading: str) -> None:
    plain, times, _ = run(10, None)
    shifted, moved, _ = run(10, Options(window=10, cutoff=T, reading=reading))
    assert torch.equal(plain, shifted)
    assert all(torch.equal(t, u) for t, u in zip(times, moved, strict=True))


@pytest.mark.parametrize("reading", READINGS[1:])
def test_at_window_0_the_released_codes_change_nothing(reading: str) -> None:
    """But for rounding: levels of single images are float32."""
    assert torch.allclose(run(10, Options(window=0, cutoff=0, reading=reading))[0], run(10, None)[0], atol=1e-5)


def test_at_window_0_algorithm_3_is_a_shift_by_one_step() -> None:
    """Every call after the first is made at the planned time before it, which the printed algorithm leaves there."""
    planned = PATH.grid(10).times
    _, times, _ = run(10, Options(window=0, cutoff=0))
    assert [t.unique().tolist() for t in times] == [[planned[0]], *([t] for t in planned[:9])]


def test_algorithm_3_calls_and_steps_at_the_times_that_fit_the_images() -> None:
    _, times, steps = run(20, Options(window=6, cutoff=40))
    planned = PATH.grid(20)
    for i, (t, made) in enumerate(zip(times, steps, strict=True)):
        before = planned.times[i - 1] if i else 0.0
        if i == 0 or before <= 40:
            assert t.unique().tolist() == [planned.times[i]]
            continue
        assert float((t - before).abs().max()) <= 3
        assert torch.equal(made.t, t)
        assert torch.equal(made.t - made.t_next, torch.full((4,), planned.times[i] - planned.times[i + 1]))
        assert torch.allclose(made.s.flatten() ** 2, (1 - PATH.alpha_bar[t.long()]).float())
    assert any(len(t.unique()) > 1 for t in times)  # images differ


def test_the_released_code_calls_at_planned_times_and_leads_to_others() -> None:
    _, times, steps = run(20, Options(window=10, cutoff=30, reading="released"), spread=0.8)
    planned = PATH.grid(20)
    assert [t.unique().tolist() for t in times] == [[t] for t in planned.times[:-1]]
    assert steps[0].t_next == planned.times[1]  # the first is planned
    moved = [i for i, step in enumerate(steps) if isinstance(step.t_next, Tensor)]
    assert moved == [i for i in range(1, 19) if planned.times[i + 1] > 30]
    assert any(float((steps[i].t_next - planned.times[i + 1]).abs().max()) > 0 for i in moved)
    assert all(float((steps[i].t_next - planned.times[i + 1]).abs().max()) <= 5 for i in moved)


@pytest.mark.parametrize("reading", READINGS)
def test_a_window_wider_than_a_step_never_leads_up(reading: str) -> None:
    end, _, steps = run(50, Options(window=40, cutoff=0, reading=reading), spread=3.0)
    assert bool(end.isfinite().all())
    for step in steps:
        assert bool((torch.as_tensor(step.t_next) <= torch.as_tensor(step.t)).all())


@pytest.mark.parametrize("reading", READINGS)
def test_a_chain_that_begins_below_the_first_step_goes_on_as_the_whole_one(reading: str) -> None:
    """What single steps and chains from a true x_t are made of: their first step is shifted, too."""
    shift = {"name": "time-shift", "window": 30, "cutoff": 10, "reading": reading}
    sampling = Sampling(sampler={"name": "ddim", "eta": 0.5}, nfe=[10], clip_x0=False, corrections=[shift])
    about, seen = (Network(), sampling, 10, torch.arange(4), SHAPE, 4), {}
    whole = draw(*about, observe=lambda step, x, _: seen.update({step.index: x}))
    for first in (1, 5):
        assert torch.equal(draw(*about, start=seen[first], first=first), whole)
    assert torch.equal(draw(*about, start=seen[5], first=5, end=6), seen[6])


def test_a_path_without_discrete_steps_and_what_is_past_the_ends_are_refused() -> None:
    check(Options(window=99, cutoff=100), Diffusion(timesteps=100), 5, "sampling.one")
    with pytest.raises(BadConfig, match=r"^sampling\.one: time-shift is for diffusion\.path vp \(it is edm\)\.$"):
        check(Options(window=2, cutoff=0), Diffusion(path="edm"), 5, "sampling.one")
    with pytest.raises(BadConfig, match=r"window of 100 is wider than the path, which has 100 steps\.$"):
        check(Options(window=100, cutoff=0), Diffusion(timesteps=100), 5, "sampling.one")
    with pytest.raises(BadConfig, match=r"cutoff of 300 is past the path, which has 100 steps: no time"):
        check(Options(window=2, cutoff=300), Diffusion(timesteps=100), 5, "sampling.one")
