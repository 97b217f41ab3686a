"""Paths and grids against their definitions, and against off-by-one mistakes."""

import pytest
import torch

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.exits import BadConfig

DDPM = Diffusion()


def test_linear_schedule_is_that_of_ddpm() -> None:
    path = paths.build(DDPM)
    betas = 1 - path.alpha_bar[1:] / path.alpha_bar[:-1]
    assert float(betas[0]) == pytest.approx(1e-4)
    assert float(betas[-1]) == pytest.approx(0.02)
    assert float(path.alpha_bar[-1]) == pytest.approx(4.0358e-5, rel=1e-3)


def test_fewer_steps_scale_the_betas() -> None:
    path = paths.build(Diffusion(timesteps=100))
    betas = 1 - path.alpha_bar[1:] / path.alpha_bar[:-1]
    assert float(betas[0]) == pytest.approx(1e-3)
    assert float(betas[-1]) == pytest.approx(0.2)
    assert float(path.alpha_bar[-1]) < 1e-4


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("timesteps", [8, 100, 1000])
def test_every_schedule_ends_in_noise(schedule: str, timesteps: int) -> None:
    path = paths.build(Diffusion(schedule=schedule, timesteps=timesteps))
    assert float(path.alpha_bar[-1]) < 1e-4
    assert (path.alpha_bar.diff() < 0).all()


def test_cosine_schedule_is_that_of_nichol_and_dhariwal() -> None:
    """Eq. 17: f(t) / f(0) with f(t) = cos^2((t / T + 0.008) / 1.008 pi / 2); the end is cut by beta <= 0.999."""
    u = torch.arange(1000, dtype=torch.float64) / 1000
    f = torch.cos((u + 0.008) / 1.008 * torch.pi / 2) ** 2
    assert torch.allclose(paths.build(Diffusion(schedule="cosine")).alpha_bar[:-1], f / f[0], rtol=1e-9, atol=0)


def test_sigmoid_schedule_is_that_of_jabri() -> None:
    """alpha_bar = (sigma(3) - sigma(6 u - 3)) / (sigma(3) - sigma(-3)); the end is cut by beta <= 0.999."""
    u = torch.arange(1000, dtype=torch.float64) / 1000
    low, high = torch.tensor([-3.0, 3.0], dtype=torch.float64).sigmoid()
    expected = (high - (6 * u - 3).sigmoid()) / (high - low)
    assert torch.allclose(paths.build(Diffusion(schedule="sigmoid")).alpha_bar[:-1], expected, rtol=1e-9, atol=0)


def test_the_network_is_given_t_from_0_to_the_published_1000() -> None:
    first_and_last = torch.tensor([1.0, 1000.0]), torch.tensor([1.0, 100.0])
    assert paths.build(DDPM).condition(first_and_last[0]).tolist() == [0, 999]
    assert paths.build(Diffusion(timesteps=100)).condition(first_and_last[1]).tolist() == [0, 990]


def test_a_path_that_keeps_data_at_its_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    unscaled = lambda n: torch.linspace(1e-4, 0.02, n, dtype=torch.float64)  # noqa: E731
    monkeypatch.setitem(paths.SCHEDULES, "linear", unscaled)
    with pytest.raises(BadConfig, match=r"alpha_bar_T is 0\.13"):
        paths.build(Diffusion(timesteps=200))


def test_training_times_are_uniform_over_1_to_T() -> None:
    path = paths.build(Diffusion(timesteps=8))
    u = (torch.arange(8000) + 0.5) / 8000
    assert torch.equal(path.draw_times(u).long().bincount(), torch.tensor([0] + [1000] * 8))


def test_full_grid_visits_every_step_once() -> None:
    grid = paths.build(DDPM).grid(1000)
    assert list(grid.times) == list(range(1000, -1, -1))
    assert len(grid) == 1000


@pytest.mark.parametrize("nfe", range(1, 101))
def test_uniform_grids_start_at_T_and_call_the_network_at_1(nfe: int) -> None:
    grid = paths.build(Diffusion(timesteps=100)).grid(nfe)
    assert len(grid) == nfe
    assert grid.times[0] == 100
    assert grid.times[-1] == 0
    assert nfe == 1 or grid.times[-2] == 1


def test_leading_and_trailing_follow_the_known_convention() -> None:
    path = paths.build(DDPM)
    assert list(path.grid(10, "leading").times) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]
    assert list(path.grid(10, "trailing").times) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]


def test_steps_are_the_posterior_of_ddpm() -> None:
    path = paths.build(DDPM)
    ab = path.alpha_bar
    for step in path.grid(1000):
        t = int(step.t)
        beta = float(1 - ab[t] / ab[t - 1])
        assert step.t_next == t - 1
        assert step.forward_variance == pytest.approx(beta, rel=1e-9)
        assert step.posterior_variance == pytest.approx(beta * float((1 - ab[t - 1]) / (1 - ab[t])), rel=1e-9)
        assert step.c_x0 == pytest.approx(float(ab[t - 1].sqrt()) * beta / float(1 - ab[t]), rel=1e-9)
        assert step.c_xt == pytest.approx((1 - beta) ** 0.5 * float((1 - ab[t - 1]) / (1 - ab[t])), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("nfe", [3, 20])
def test_steps_keep_the_forward_marginal(nfe: int) -> None:
    """Mean and variance of x_u from q(x_t | x_0) and the posterior are those of q(x_u | x_0), whatever the stride."""
    for step in paths.build(DDPM).grid(nfe):
        assert step.c_x0 + step.c_xt * step.a == pytest.approx(step.a_next, abs=1e-9)
        assert (step.c_xt * step.s) ** 2 + step.posterior_variance == pytest.approx(step.s_next**2, abs=1e-9)


@pytest.mark.parametrize("nfe", [0, 101])
def test_impossible_grids_are_refused(nfe: int) -> None:
    with pytest.raises(BadConfig, match="100 steps"):
        paths.build(Diffusion(timesteps=100)).grid(nfe)


def test_a_grid_must_decrease_to_clean_data() -> None:
    with pytest.raises(ValueError, match="decrease"):
        Grid((2.0, 2.0, 0.0), (0.1, 0.5, 1.0), (0.9, 0.5, 0.0))
    with pytest.raises(ValueError, match="t = 0"):
        Grid((2.0, 1.0), (0.1, 0.5), (0.9, 0.5))


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_a_prediction_reads_the_same_in_all_parametrisations(kind: str) -> None:
    from pipeline_lib.diffusion.denoiser import Prediction

    torch.manual_seed(0)
    x0, eps = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    a, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    blank = Prediction(a * x0 + s * eps, a, s, x0, kind)
    exact = Prediction(blank.x, a, s, blank.target(x0, eps), kind)
    assert torch.allclose(exact.x0, x0)
    assert torch.allclose(exact.eps, eps)
    assert torch.allclose(exact.with_x0(x0 + 1).eps, (exact.x - a * (x0 + 1)) / s)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_integers_read_the_table_of_ddpm_to_the_bit(schedule: str) -> None:
    path = paths.build_vp(Diffusion(schedule=schedule, timesteps=1000))
    table = torch.stack((path.alpha_bar.sqrt(), (1 - path.alpha_bar).sqrt())).float()
    for dtype in (torch.float32, torch.int64):
        assert torch.equal(torch.stack(path.coefficients(torch.arange(1001).to(dtype))), table)
    assert torch.equal(path.log_alpha_bar(torch.arange(1001.0)), path.alpha_bar.log())


def test_between_the_steps_the_logarithm_of_alpha_bar_is_linear() -> None:
    path = paths.build_vp(Diffusion(timesteps=100))
    t = torch.tensor([0.5, 3.25, 99.75, 100.5], dtype=torch.float64)
    log = path.alpha_bar.log()
    expected = [log[0] + log[1], 1.5 * log[3] + 0.5 * log[4], 0.5 * log[99] + 1.5 * log[100], 3 * log[100] - log[99]]
    assert path.log_alpha_bar(t).tolist() == pytest.approx([float(e) / 2 for e in expected])
    a, s = path.coefficients(t)
    assert torch.allclose(a.double() ** 2, path.log_alpha_bar(t).exp(), rtol=1e-6)
    assert torch.allclose(s.double() ** 2, 1 - path.log_alpha_bar(t).exp(), rtol=1e-6)


def test_beyond_the_last_step_the_logarithm_goes_on() -> None:
    """The upper arm of a time difference may be longer than a step, and the step that it ends in is not there."""
    path = paths.build(DDPM)
    t = torch.tensor([1000.5, 1001.0, 1003.0])
    last = path.alpha_bar[-2:].log()
    log_alpha_bar = last[1] + (t.double() - 1000) * last.diff()
    a, s = path.coefficients(t)
    assert a.double().tolist() == pytest.approx((log_alpha_bar / 2).exp().tolist())
    assert (a**2 + s**2).tolist() == pytest.approx([1, 1, 1])


def test_the_rate_is_the_slope_of_the_logarithm_of_alpha_bar() -> None:
    """In units of the whole path, where the linear schedule of DDPM runs from 0.1 to 20."""
    path = paths.build_vp(DDPM)
    t = torch.tensor([0.5, 1.0, 37.9, 500.0, 999.99, 1000.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(path.log_alpha_bar(t).sum(), t)
    assert path.rate(t.detach()).tolist() == pytest.approx((-1000 * slope).tolist(), rel=1e-9)
    assert path.rate(torch.tensor([0.5, 999.5])).tolist() == pytest.approx([0.1, 20.2], rel=1e-3)
