"""Jackknife against brute force and against the spread over repetitions; the level of the permutation test."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from pipeline_lib.diffusion.kernels import gaussian, squared_distances
from pipeline_lib.diffusion.mmd import mmd2
from pipeline_lib.errors.uncertainty import estimate, labellings, p_value, permutation_null


def matrices(n: int, m: int, shift: float, seed: int, d: int = 3) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=rng) + shift, torch.randn(m, d, generator=rng)
    return tuple(gaussian(k, 1.7) for k in (squared_distances(x), squared_distances(x, y), squared_distances(y)))


@pytest.mark.parametrize("statistic", ["u", "v"])
def test_jackknife_equals_leaving_each_sample_out(statistic):
    xx, xy, yy = matrices(9, 7, 0.5, 0)
    found = estimate(xx, xy, yy, statistic)
    assert found.value == pytest.approx(float(mmd2(xx, xy, yy, statistic)), abs=1e-12)
    keep = [[j for j in range(9) if j != i] for i in range(9)]
    without = np.array([float(mmd2(xx[k][:, k], xy[k], yy, statistic)) for k in keep])
    assert np.allclose(found.chains, 8 * (without.mean() - without), atol=1e-12)
    keep = [[j for j in range(7) if j != i] for i in range(7)]
    down = np.array([float(mmd2(xx, xy[:, k], yy[k][:, k], statistic)) for k in keep])
    assert np.allclose(found.forward, 6 * (down.mean() - down), atol=1e-12)
    by_definition = 8 / 9 * ((without - without.mean()) ** 2).sum() + 6 / 7 * ((down - down.mean()) ** 2).sum()
    assert found.se**2 == pytest.approx(by_definition)


@pytest.mark.parametrize("statistic", ["u", "v"])
def test_jackknife_matches_the_spread_where_the_laws_differ(statistic):
    found = [estimate(*matrices(60, 90, 0.7, seed), statistic) for seed in range(300)]
    spread = np.std([f.value for f in found])
    assert np.sqrt(np.mean([f.se**2 for f in found])) == pytest.approx(spread, rel=0.15)


def test_jackknife_overstates_the_spread_where_the_laws_are_equal():
    found = [estimate(*matrices(60, 60, 0.0, seed)) for seed in range(400)]
    variances = np.mean([f.se**2 for f in found]) / np.var([f.value for f in found])
    assert 1.6 < variances < 2.6


@pytest.mark.parametrize("statistic", ["u", "v"])
def test_null_equals_relabelling_the_pool_one_by_one(statistic):
    xx, xy, yy = matrices(6, 8, 0.3, 0)
    labels = labellings(6, 8, 5, seed=0)
    pooled = torch.cat((torch.cat((xx, xy), 1), torch.cat((xy.T, yy), 1)))
    direct = []
    for column in labels.T:
        x, y = torch.where(column == 1)[0], torch.where(column == 0)[0]
        assert len(x) == 6
        direct.append(float(mmd2(pooled[x][:, x], pooled[x][:, y], pooled[y][:, y], statistic)))
    assert np.allclose(permutation_null(xx, xy, yy, labels, statistic), direct, atol=1e-12)


def test_permutation_test_rejects_at_its_level_under_equality():
    labels, level, repeats = labellings(20, 25, 99, seed=0), 0.1, 300
    p = [_p(matrices(20, 25, 0.0, seed), labels) for seed in range(repeats)]
    low, high = binom.interval(0.999, repeats, level)
    assert low <= sum(x <= level for x in p) <= high


def test_permutation_test_sees_a_difference():
    labels = labellings(40, 40, 99, seed=0)
    assert _p(matrices(40, 40, 0.8, 0), labels) == 1 / 100


def test_p_values_count_the_observed_one_and_ties():
    assert p_value(1.0, np.array([0.0, 1.0, 2.0])) == 3 / 4
    assert p_value(3.0, np.array([0.0, 1.0, 2.0])) == 1 / 4


def _p(k: tuple[torch.Tensor, ...], labels: torch.Tensor) -> float:
    return p_value(estimate(*k).value, permutation_null(*k, labels))
