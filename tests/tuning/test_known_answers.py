"""Ways of tuning where the answer is known: Gaussian data in EDM time, Euler's steps, eps planted 2 % too large.

From t to u such a chain goes by x_u = x_t (1 - m h / lambda), h = (t - u) t / (c + t^2), for data of variance c and eps
m times too large; so all norms and the variance of x_0 are closed forms.
"""

from math import prod, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.tuning import linear_scaling, norm_ratio, simulated, uniform_scaling
from pipeline_lib.tuning._bench import norm_ratio as ratio_of_norms
from tests.tuning.bench import EULER, HEUN, PATH, SPREAD, bench, exact

PLANTED = 1.02


def h(step: Step) -> float:
    return (step.t - step.t_next) * step.t / (SPREAD + step.t**2)


def shrunk(step: Step) -> float:
    """By what the standard deviation of the true x_t falls in the step."""
    return sqrt((SPREAD + step.t_next**2) / (SPREAD + step.t**2))


def best_b(steps: int, order: int) -> float:
    """The b at which x_0 has the variance of the data, by bisection."""

    def shrinks(step: Step, b: float) -> float:
        first = 1 - PLANTED / b * h(step)
        if order == 1 or step.is_last:
            return first
        slope = step.t_next / (SPREAD + step.t_next**2) * first  # at Euler's guess, over x_t
        return 1 + (step.t_next - step.t) * PLANTED / b * (step.t / (SPREAD + step.t**2) + slope) / 2

    grid, low, high = PATH.grid(steps), 0.9, 1.2
    for _ in range(50):
        b = (low + high) / 2
        wide = prod(shrinks(step, b) for step in grid) > sqrt(SPREAD / (SPREAD + grid.times[0] ** 2))
        low, high = (low, b) if wide else (b, high)
    return b


def test_the_uniform_search_finds_the_planted_factor(tmp_path: Path) -> None:
    options = uniform_scaling.Options(images=30, low=0.98, high=1.06)
    found = uniform_scaling.find(options, at := bench(exact(PLANTED), 159, tmp_path, images=30, sampler=HEUN))
    assert found["b"] == pytest.approx(PLANTED, abs=0.0011)
    tried = [row["b"] for row in at.trials.rows]
    coarse = [row["b"] for row in at.trials.rows if row["round"] == "b, stride 0.005"]
    assert coarse == pytest.approx([0.98 + 0.005 * i for i in range(17)])
    assert len(tried) == len(set(tried)) == 17 + 8  # the best of the coarse stride is not drawn twice
    assert 1.0 in tried


@pytest.mark.parametrize(("sampler", "nfe", "steps", "about"), [(EULER, 20, 20, 1.045), (HEUN, 29, 15, 1.001)])
def test_few_steps_have_a_factor_of_their_own(
    tmp_path: Path, sampler: dict[str, Any], nfe: int, steps: int, about: float
) -> None:
    """The best b also makes up for the steps: Euler's want a larger one, Heun's a smaller one. So what is tuned for one
    number of calls serves no other, and without a planted error few steps of Heun want a b below 1."""
    wanted = best_b(steps, sampler["order"])
    assert wanted == pytest.approx(about, abs=5e-4)
    options = uniform_scaling.Options(images=30, low=0.98, high=1.08, strides=[0.01, 0.001])
    found = uniform_scaling.find(options, bench(exact(PLANTED), nfe, tmp_path, images=30, sampler=sampler))
    assert found["b"] == pytest.approx(wanted, abs=0.0011)


def test_linear_scaling_keeps_the_sum(tmp_path: Path) -> None:
    options = linear_scaling.Options(
        images=50, low=1.0, high=1.04, strides=[0.02], k_low=-0.002, k_high=0.004, k_stride=0.002
    )
    at = bench(exact(PLANTED), 6, tmp_path)
    found = linear_scaling.find(options, at)
    slopes = [row for row in at.trials.rows if row["k"]]
    assert [row["k"] for row in slopes] == [-0.002, 0.002, 0.004]
    best = min((row for row in at.trials.rows if not row["k"]), key=lambda row: row["score"])["b"]
    for row in [*slopes, found]:
        lambdas = [row["k"] * i + row["b"] for i in range(6)]
        assert sum(lambdas) == pytest.approx(6 * best)
    assert (found["b"], found["k"]) == min((row["score"], row["b"], row["k"]) for row in at.trials.rows)[1:]


def test_simulation_finds_the_planted_factor_at_every_step(tmp_path: Path) -> None:
    """Closed form of each step that begins at the right norm: lambda = m h / (1 - shrunk)."""
    at = bench(exact(PLANTED), 15, tmp_path, images=1500)
    found = simulated.find(simulated.Options(images=1500, drift=0.1, bound=0.5), at)["factors"]
    wanted = [PLANTED * h(step) / (1 - shrunk(step)) for step in at.grid]
    assert len(found) == 15
    assert found[-1] == found[-2]
    said = [h(step) > 0.05 for step in at.grid]  # below, the norm says too little, and lambda stays
    assert sum(said) >= 8
    for value, expected, clear in zip(found[:-1], wanted, said, strict=False):
        if clear:
            assert value == pytest.approx(expected, abs=0.04)
    assert max(wanted) > 1.2


def test_simulation_on_a_fine_grid_gives_the_planted_factor_and_1_for_the_exact_denoiser(tmp_path: Path) -> None:
    for planted in (1.0, PLANTED):
        at = bench(exact(planted), 59, tmp_path / str(planted), images=600, sampler=HEUN)
        found = simulated.find(simulated.Options(images=600, drift=0.003), at)["factors"]
        assert max(abs(value - planted) for value in found) < 0.01


def test_local_ratios_do_not_see_a_factor_that_is_always_there(tmp_path: Path) -> None:
    """It is in both norms, and what is left of it is what one step makes of it: (1 - m h) / shrunk, which is lower by
    (m - 1) h / shrunk than without the factor. So the way divides by less than 1 where the answer is 1.02."""
    at = bench(exact(PLANTED), 59, tmp_path)
    found = norm_ratio.find(norm_ratio.Options(images=300), at)["factors"]
    wanted = [1.0, *((1 - PLANTED * h(step)) / shrunk(step) for step in at.grid)][:59]
    assert found == pytest.approx(wanted, abs=2e-3)
    assert max(found) < 1.001


def test_norms_of_data_that_are_one_point(tmp_path: Path) -> None:
    """All data at 0, eps = x / t: with lambda the norm is (T / t)^(1 - 1 / lambda) times that of training; 1.023 at
    t = 8 for lambda = 1.01 and T = 80. An integral of lambda - 1 over t, which has a unit, would be another number."""

    class Point:
        path = PATH

        def __call__(self, x: Tensor, t: float | Tensor, labels: Tensor | None = None) -> Prediction:
            s = torch.as_tensor(t).expand(len(x)).reshape(-1, 1, 1, 1)
            return Prediction(x, torch.ones_like(s), s, torch.zeros_like(x), "x0")

    at = bench(Point(), 201, tmp_path, images=20, sampler=HEUN)
    at.data.spread = 0.0
    x, place = at.true(0), 0
    while at.grid.times[place + 1] > 8:
        x, norms = at.advance(place, x, 1.01, "eps")
        place += 1
    ratio, se = ratio_of_norms(norms, at.norms(place, at.true(place)))
    assert ratio == pytest.approx((80 / at.grid.times[place]) ** (1 - 1 / 1.01), abs=1e-4)
    assert ratio == pytest.approx(1.023, abs=1e-3)
    assert se < 1e-6
