"""The EDM path: its grid, its training times and its place beside the VP family."""

from math import exp, log

import pytest
import torch

from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig

EDM = paths.build(Diffusion(path="edm"))


def test_grid_is_that_of_karras() -> None:
    """Eq. 5 of Karras et al. (2022) written out, with their 18 steps of CIFAR-10."""
    grid = EDM.grid(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert grid.times == pytest.approx([*expected, 0.0])
    assert grid.s == grid.times
    assert set(grid.a) == {1.0}
    assert EDM.grid(1).times == (80.0, 0.0)
    assert EDM.prior_std == 80.0


def test_training_times_are_log_normal() -> None:
    t = EDM.draw_times((torch.arange(100_000) + 0.5) / 100_000)
    assert float(t.log().mean()) == pytest.approx(-1.2, abs=1e-2)
    assert float(t.log().std()) == pytest.approx(1.2, abs=1e-2)


def test_coefficients_and_condition() -> None:
    a, s = EDM.coefficients(torch.tensor([0.5, 2.0]))
    assert a.tolist() == [1.0, 1.0]
    assert s.tolist() == [0.5, 2.0]
    assert EDM.condition(torch.tensor(exp(2.0))) == pytest.approx(0.5)
    assert paths.log_snr(1.0, 0.5) == pytest.approx(2 * log(2))


def test_transitions_hold_on_this_path_too() -> None:
    """q(x_u | x_t, x_0) of a = 1: mean x_0 + (u / t)^2 (x_t - x_0), variance u^2 (1 - u^2 / t^2)."""
    step = EDM.grid(10).step(4)
    ratio = (step.t_next / step.t) ** 2
    assert step.c_xt == pytest.approx(ratio)
    assert step.c_x0 == pytest.approx(1 - ratio)
    assert step.posterior_variance == pytest.approx(step.t_next**2 * (1 - ratio))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadConfig, match="spacing 'leading' is for paths with integer t"):
        EDM.grid(10, "leading")
    with pytest.raises(BadConfig, match="at least one step"):
        EDM.grid(0)
    with pytest.raises(ValueError, match="sigma_min 90 must be smaller"):
        Diffusion(path="edm", sigma_min=90)
    with pytest.raises(ValueError, match="does not serve path edm"):
        Run(diffusion={"path": "edm"}, objective="ddpm")
