"""Estimates of exposure bias against closed forms and repetition."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline_lib.errors import exposure
from pipeline_lib.errors.exposure import Measured, rms, spread_gap


def normal(n: int, std: list[float], seed: int) -> torch.Tensor:
    z = torch.randn(n, len(std), 1, 1, generator=torch.Generator().manual_seed(seed))
    return z * torch.tensor(std)[:, None, None]


def test_spread_gap_and_its_standard_error() -> None:
    found = [spread_gap(normal(400, [0.5, 1.5], seed) + 3, 0.9) for seed in range(200)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(0.1, abs=4 * values.std() / 200**0.5)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15)


def test_many_pixels_do_not_see_a_gap_where_there_is_none() -> None:
    """The standard deviation of 50 numbers falls short by 0.005, three standard errors of a mean over 1024 of them."""
    found = [spread_gap(normal(50, [1.0] * 1024, seed), 1.0) for seed in range(100)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(0, abs=4 * values.std() / 100**0.5)
    inside = [f.interval(0.95)[0] <= 0 <= f.interval(0.95)[1] for f in found]
    assert np.mean(inside) > 0.85


def test_rms_and_its_standard_error() -> None:
    found = [rms(normal(400, [0.5, 1.5], seed)) for seed in range(200)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(2.5**0.5, abs=4 * values.std() / 200**0.5 + 1e-3)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15)


def test_interval_is_the_normal_one() -> None:
    low, high = Measured(1.0, 0.5).interval(0.95)
    assert (low, high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)


def _shifted(seed: int, mean: tuple[float, float]) -> torch.Tensor:
    return normal(200, [0.5, 1.5], seed) + torch.tensor(mean)[:, None, None]


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (lambda seed: exposure.squared_bias(_shifted(seed, (0.3, 0.4))), 0.125),
        (lambda seed: exposure.squared_bias(_shifted(seed, (0.0, 0.0))), 0.0),
        (lambda seed: exposure.variance(_shifted(seed, (3.0, 1.0))), 1.25),
        (lambda seed: exposure.spread(_shifted(seed, (3.0, 1.0))[:, 1].flatten()), 1.5),
        (lambda seed: exposure.mean(_shifted(seed, (3.0, 1.0))[:, 1].flatten()), 1.0),
        (lambda seed: exposure.squared(exposure.mean(_shifted(seed, (0.0, 2.0))[:, 1].flatten())), 4.0),
        (lambda seed: exposure.ratio(rms(_shifted(seed, (0, 0))), rms(_shifted(seed + 999, (0, 0)))), 1.0),
        (lambda seed: exposure.paired_ratio(_shifted(seed, (0, 0)), 2 * _shifted(seed, (0, 0))), 0.5),
        (lambda seed: exposure.paired_ratio(_shifted(seed, (0, 0)), _shifted(seed + 999, (0, 0))), 1.0),
    ],
)
def test_estimates_and_their_standard_errors(estimate: Callable[[int], Measured], expected: float) -> None:
    found = [estimate(seed) for seed in range(400)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / 400**0.5 + 0.001)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15, abs=1e-12)


def test_correlation_and_its_standard_error() -> None:
    clock = torch.linspace(0, 1, 5)
    found = [exposure.correlation(clock, clock[:, None] + normal(200, [1.0], seed).flatten()) for seed in range(300)]
    values = np.array([f.value for f in found])
    signal = float(clock.var(unbiased=False))
    assert values.mean() == pytest.approx((signal / (1 + signal)) ** 0.5, abs=0.005)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15)
    y = clock[:, None] + normal(5 * 20, [1.0], 0).reshape(5, 20)
    expected = np.corrcoef(np.repeat(clock.numpy(), 20), y.flatten().numpy())[0, 1]
    assert exposure.correlation(clock, y).value == pytest.approx(expected)


def test_a_pixel_that_never_changes_leaves_a_standard_error() -> None:
    found = spread_gap(normal(50, [1.0, 0.0], 0), 0.2)
    assert found.se == pytest.approx(spread_gap(normal(50, [1.0], 1), 0).se / 2, rel=0.5)
