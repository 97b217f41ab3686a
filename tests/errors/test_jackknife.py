"""Differences of estimates that share random numbers: nothing against itself, and intervals that hold the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from pipeline_lib.analytic import exact
from pipeline_lib.diffusion.kernels import gaussian, squared_distances
from pipeline_lib.errors.jackknife import Estimate, mean
from pipeline_lib.errors.uncertainty import estimate

SCALE, D, N, REPEATS = 1.7, 3, 80, 400
LAWS = {"method": (0.55, 1.0), "control": (0.7, 1.1)}  # mean and standard deviation of every coordinate; forward: 0, 1


def drawn(seed: int) -> dict[str, Estimate]:
    """Both runs from one noise, against one set of forward samples."""
    rng = torch.Generator().manual_seed(seed)
    z, y = torch.randn(N, D, generator=rng), torch.randn(N, D, generator=rng)
    return {name: compared(shift + spread * z, y) for name, (shift, spread) in LAWS.items()}


def compared(x: torch.Tensor, y: torch.Tensor) -> Estimate:
    distances = squared_distances(x), squared_distances(x, y), squared_distances(y)
    xx, xy, yy = (gaussian(d, SCALE) for d in distances)
    return estimate(xx, xy, yy)


def true(name: str) -> float:
    shift, spread = LAWS[name]
    one, eye = torch.ones(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    return exact.mmd2(exact.Normal(shift * one, spread**2 * eye), exact.Normal(0 * one, eye), SCALE)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Estimate, Estimate]]:
    return [(one["method"], one["control"]) for one in map(drawn, range(REPEATS))]


def test_a_run_less_itself_is_nothing_for_sure():
    one = drawn(0)["method"]
    found = one - one
    assert (found.value, found.se, found.interval(0.95)) == (0.0, 0.0, (0.0, 0.0))


def test_the_paired_interval_holds_the_true_difference_at_its_level(pairs):
    difference = true("method") - true("control")
    intervals = [(a - b).interval(0.9) for a, b in pairs]
    low, high = binom.interval(0.999, REPEATS, 0.9)
    assert low <= sum(lower <= difference <= upper for lower, upper in intervals) <= high


def test_the_paired_standard_error_is_the_spread_over_repetitions_and_below_that_of_unpaired_runs(pairs):
    found = [a - b for a, b in pairs]
    paired = np.mean([one.se**2 for one in found])
    assert np.sqrt(paired) == pytest.approx(np.std([one.value for one in found]), rel=0.12)
    assert paired < 0.3 * np.mean([a.se**2 + b.se**2 for a, b in pairs])


def test_chance_alone_would_not_pass_for_a_difference(pairs):
    """Chains of other noise paired at will have no common part: their interval is as wide as that of two runs."""
    (first, _), (_, other) = pairs[0], pairs[1]
    wide = np.hypot(first.se, other.se)
    assert (first - other).se == pytest.approx(wide, rel=0.3)


def test_a_mean_over_steps_has_their_covariance():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(200) - 1
    z -= z.mean()
    same, opposite = Estimate(1.0, z, z), Estimate(3.0, -z, -z)
    assert mean([same, same]).se == pytest.approx(same.se)
    both = mean([same, opposite])
    assert (both.value, both.se) == (2.0, 0.0)
