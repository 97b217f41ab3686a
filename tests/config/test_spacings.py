"""Grids against the released formula, against diffusers, and where there is none."""

from fractions import Fraction
from math import floor

import pytest

from pipeline_lib.config.spacings import visited
from pipeline_lib.exits import BadConfig


def test_ten_quadratic_steps_are_those_of_ddim() -> None:
    """The squares of ten even steps from 0 to sqrt(800) round down to 0, 9, 39, ... 800, counted from 0."""
    assert visited("quadratic", 1000, 10) == [801, 633, 484, 356, 247, 159, 89, 40, 10, 1]


@pytest.mark.parametrize("total", [50, 100, 200, 1000, 4000])
def test_quadratic_steps_are_exact_squares_rounded_down(total: int) -> None:
    """Against rational arithmetic. Where a square is an integer, the released floating point may fall below it."""
    for nfe in range(2, round((0.8 * total) ** 0.5)):
        exact = [Fraction(4 * total, 5) * Fraction(i, nfe - 1) ** 2 for i in reversed(range(nfe))]
        for t, square in zip(visited("quadratic", total, nfe), exact, strict=True):
            assert t - 1 == floor(square) or (square.denominator == 1 and t == square)


@pytest.mark.parametrize(("total", "largest"), [(100, 9), (1000, 29), (4000, 57)])
def test_a_quadratic_grid_never_visits_a_t_twice(total: int, largest: int) -> None:
    times = visited("quadratic", total, largest)
    assert times == sorted(set(times), reverse=True)
    with pytest.raises(BadConfig, match=rf"^spacing quadratic visits a t twice .* take at most {largest}\.$"):
        visited("quadratic", total, 2 * largest)


def test_one_quadratic_step_would_be_at_the_wrong_end() -> None:
    with pytest.raises(BadConfig, match=r"at t = 1 alone: take at least 2\.$"):
        visited("quadratic", 1000, 1)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("nfe", [1, 4, 10, 50, 1000])
def test_leading_and_trailing_are_those_of_diffusers(spacing: str, nfe: int) -> None:
    """Whose times count from 0. Step counts that divide T: see tests/samplers/test_golden.py."""
    scheduler = pytest.importorskip("diffusers.schedulers.scheduling_ddpm").DDPMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(nfe)
    assert visited(spacing, 1000, nfe) == [int(t) + 1 for t in scheduler.timesteps]


@pytest.mark.parametrize("spacing", ["uniform", "leading", "trailing", "quadratic"])
@pytest.mark.parametrize("nfe", [0, 101])
def test_more_steps_than_the_path_has_are_refused(spacing: str, nfe: int) -> None:
    with pytest.raises(BadConfig, match=f"nfe is {nfe}, but the path has 100 steps"):
        visited(spacing, 100, nfe)
