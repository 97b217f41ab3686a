"""Estimates of exposure bias against closed forms and repetition."""

import numpy as np
import pytest
import torch

from pipeline_lib.errors.exposure import Measured, rms, spread_gap


def normal(n: int, std: list[float], seed: int) -> torch.Tensor:
    z = torch.randn(n, len(std), 1, 1, generator=torch.Generator().manual_seed(seed))
    return z * torch.tensor(std)[:, None, None]


def test_spread_gap_and_its_standard_error() -> None:
    found = [spread_gap(normal(400, [0.5, 1.5], seed) + 3, 0.9) for seed in range(200)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(0.1, abs=4 * values.std() / 200**0.5 + 1e-3)  # std is biased by 1 / (4 n)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15)


def test_rms_and_its_standard_error() -> None:
    found = [rms(normal(400, [0.5, 1.5], seed)) for seed in range(200)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(2.5**0.5, abs=4 * values.std() / 200**0.5 + 1e-3)
    assert np.mean([f.se for f in found]) == pytest.approx(values.std(), rel=0.15)


def test_interval_is_the_normal_one() -> None:
    low, high = Measured(1.0, 0.5).interval(0.95)
    assert (low, high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)
