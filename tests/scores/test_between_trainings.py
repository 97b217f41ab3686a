"""The spread between trainings without the noise of their samples, against trainings whose spread is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline_lib.scores import frechet
from pipeline_lib.scores.estimates import Estimate, share, variance_between
from pipeline_lib.scores.frechet import Moments

SD, N, SEEDS, REPEATS = 0.02, 400, 4, 2000


def drawn(random: np.random.Generator, noise: Callable[[np.random.Generator], np.ndarray]) -> list[Estimate]:
    """Shares of N images above 0, of SEEDS trainings whose expected shares have the standard deviation SD."""
    found = []
    for chance, uniform in zip(random.normal(0.5, SD, SEEDS), noise(random), strict=True):
        found.append(share(uniform < chance))
    return found


def together(random: np.random.Generator) -> np.ndarray:
    return np.tile(random.uniform(size=N), (SEEDS, 1))


def partly(random: np.random.Generator) -> np.ndarray:
    """Half of the images are those of all, half are each training's own."""
    mine = random.uniform(size=(SEEDS, N))
    mine[:, : N // 2] = random.uniform(size=N // 2)
    return mine


def apart(random: np.random.Generator) -> np.ndarray:
    return random.uniform(size=(SEEDS, N))


@pytest.mark.parametrize("noise", [together, partly, apart])
def test_it_is_unbiased_whatever_the_trainings_share(noise: Callable[[np.random.Generator], np.ndarray]) -> None:
    """The noise of one share, 0.025, is larger than what the trainings differ by. sd^2 less se^2 is not unbiased."""
    random = np.random.default_rng(0)
    repeats = [drawn(random, noise) for _ in range(REPEATS)]
    found = np.array([variance_between(one) for one in repeats])
    error = found.std(ddof=1) / REPEATS**0.5
    assert error < 0.1 * SD**2
    assert found.mean() == pytest.approx(SD**2, abs=3 * error)
    if noise is together:
        naive = [np.var([e.value for e in one], ddof=1) - np.mean([e.se**2 for e in one]) for one in repeats]
        assert np.mean(naive) < 0


def test_it_holds_for_a_frechet_distance() -> None:
    """Trainings draw N(m, I) in place of N(0, I), on noise that is half shared: without it the distance is m^2 and what
    all have in common, so its variance between trainings is that of m^2."""
    random, repeats, of_m = np.random.default_rng(1), 400, 0.05
    reference = Moments.given(torch.zeros(2), torch.eye(2))
    found, plain = [], []
    for _ in range(repeats):
        noise = (random.normal(size=(300, 2)) + random.normal(size=(3, 300, 2))) / 2**0.5
        noise[..., 0] += random.normal(1.0, of_m, size=(3, 1))
        trainings = [frechet.estimate(reference, torch.from_numpy(one)) for one in noise]
        found.append(variance_between(trainings))
        plain.append(np.var([one.value for one in trainings], ddof=1))
    true = 4 * of_m**2 + 2 * of_m**4  # Var of m^2, m ~ N(1, of_m^2)
    error = np.std(found, ddof=1) / repeats**0.5
    assert np.mean(plain) > true + 4 * error
    assert np.mean(found) == pytest.approx(true, abs=3 * error)


def test_it_is_the_mean_over_pairs_of_half_their_squared_errors() -> None:
    random = np.random.default_rng(2)
    found = [Estimate(value, random.normal(size=30)) for value in (1.0, 1.5, 3.0)]
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    expected = np.mean([((a.value - b.value) ** 2 - (a - b).se ** 2) / 2 for a, b in pairs])
    assert variance_between(found) == pytest.approx(expected, rel=1e-12)


def test_it_can_be_below_zero() -> None:
    one, other = np.random.default_rng(3).normal(size=(2, 50))
    assert variance_between([Estimate(1.0, one), Estimate(1.0, other)]) < 0


@pytest.mark.parametrize("found", [[Estimate(1.0, np.zeros(3))], [Estimate(1.0, np.zeros(n)) for n in (3, 4)]])
def test_what_has_no_spread_is_refused(found: list[Estimate]) -> None:
    with pytest.raises(ValueError, match="needs two"):
        variance_between(found)
