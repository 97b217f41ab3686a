"""The Frechet distance against closed forms, torch-fidelity and scipy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pipeline_lib.exits import BadData
from pipeline_lib.scores import _torchvision, frechet
from pipeline_lib.scores.estimates import Estimate
from pipeline_lib.scores.frechet import Moments


def features(count: int, dim: int, seed: int) -> torch.Tensor:
    """Correlated features with means far from zero."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim)) / np.sqrt(dim)
    return torch.from_numpy((rng.normal(size=(count, dim)) @ mix + rng.normal(size=dim) + 5).astype(np.float32))


def moments(x: torch.Tensor, block: int = 10_000) -> Moments:
    out = Moments(x.shape[1])
    for part in x.split(block):
        out.add(part)
    return out


def exact(mean: list[float], covariance: np.ndarray) -> Moments:
    """Moments with just this mean and covariance."""
    out = Moments(len(mean))
    out.count, out.mean, out.scatter = 2, torch.tensor(mean, dtype=torch.float64), torch.from_numpy(covariance)
    return out


def test_diagonal_gaussians_have_the_closed_form() -> None:
    variances = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    a, b = exact([0, 0, 1], np.diag(variances[0])), exact([3, 4, 1], np.diag(variances[1]))
    expected = 25 + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    assert frechet.distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_one_common_rotation_changes_nothing() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    a, b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 1.0, 0.25])
    turned = frechet.distance(exact([0, 0, 0], turn @ a @ turn.T), exact([0, 0, 0], turn @ b @ turn.T))
    assert turned == pytest.approx(frechet.distance(exact([0, 0, 0], a), exact([0, 0, 0], b)), rel=1e-12)


def test_moments_are_those_of_numpy_whatever_the_blocks() -> None:
    x = features(1000, 7, 0) + 1000
    reference = x.double().numpy()
    for block in (1, 64, 1000):
        found = moments(x, block)
        assert found.count == 1000
        np.testing.assert_allclose(found.mean, reference.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(reference, rowvar=False), rtol=1e-9)


def test_merging_parts_gives_the_whole() -> None:
    x = features(500, 5, 0)
    whole, left, empty = moments(x), moments(x[:123]), Moments(5)
    left.merge(moments(x[123:]))
    left.merge(empty)
    empty.merge(left)
    for found in (left, empty):
        assert found.count == whole.count
        torch.testing.assert_close(found.mean, whole.mean)
        torch.testing.assert_close(found.scatter, whole.scatter)


@pytest.mark.parametrize("count", [400, 30])
def test_equals_torch_fidelity(count: int) -> None:
    _torchvision.ensure()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    x, y = features(500, 64, 1), features(count, 64, 2)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    assert frechet.distance(moments(x), moments(y)) == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6)


def test_equals_scipy_symmetric_and_with_a_root_kept() -> None:
    x, y = moments(features(300, 16, 1)), moments(features(200, 16, 2))
    s, r = x.covariance.numpy(), y.covariance.numpy()
    expected = float((x.mean - y.mean) @ (x.mean - y.mean)) + np.trace(s + r - 2 * sqrtm(s @ r).real)
    there = frechet.distance(x, y)
    assert there == pytest.approx(expected, rel=1e-9)
    assert frechet.distance(y, x) == pytest.approx(there, rel=1e-9)
    assert frechet.distance(x, y, frechet.root(x.covariance)) == there


def test_equal_moments_are_at_distance_zero() -> None:
    x = moments(features(300, 16, 1))
    assert frechet.distance(x, x) == pytest.approx(0, abs=1e-9 * float(x.covariance.trace()))


def test_saved_moments_come_back_and_have_stable_bytes(tmp_path: Path) -> None:
    x = moments(features(50, 4, 0))
    x.save(tmp_path / "a.npz")
    x.save(tmp_path / "b.npz")
    back = Moments.load(tmp_path / "a.npz")
    assert back.count == 50
    assert torch.equal(back.mean, x.mean)
    assert torch.equal(back.scatter, x.scatter)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_file_cut_short_is_bad_data(tmp_path: Path) -> None:
    moments(features(50, 4, 0)).save(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(BadData, match=r"a\.npz does not hold feature moments"):
        Moments.load(tmp_path / "a.npz")


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="two samples"):
        _ = moments(features(1, 4, 0)).covariance


def shifted(count: int, dim: int, seed: int, spread: float = 0.4) -> torch.Tensor:
    """Gaussian features with mean 0.2 and standard deviations around 1; the reference is N(0, 1)."""
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x * torch.linspace(1 - spread, 1 + spread, dim) + 0.2


def standard(dim: int) -> Moments:
    return Moments.given(torch.zeros(dim), torch.eye(dim))


def test_an_estimate_is_the_distance_and_its_influences_the_derivative() -> None:
    x, reference = shifted(60, 5, 0), moments(features(300, 5, 1))
    found = frechet.estimate(reference, x)
    assert found.value == pytest.approx(frechet.distance(reference, moments(x)), rel=1e-12)
    assert abs(found.influence.mean()) < 1e-12

    def weighted(weights: torch.Tensor) -> float:
        share = weights / weights.sum()
        centred = x - share @ x
        unbiased = (centred * share[:, None]).T @ centred * 60 / 59
        return frechet.distance(reference, Moments.given(share @ x, unbiased))

    for i in (0, 7, 59):
        more, less = torch.ones(60).double(), torch.ones(60).double()
        more[i], less[i] = 1 + 6e-4, 1 - 6e-4
        slope = (weighted(more) - weighted(less)) / (2 * 6e-4 / 60)
        assert slope == pytest.approx(found.influence[i], rel=0.05, abs=0.01)  # 1/59 for 1/60 in the covariance


def test_its_interval_holds_the_expected_score_and_the_extrapolated_one_the_truth() -> None:
    """400 samples of 8 dimensions. The plain score is too large by its bias, as a bootstrap's mean would be by twice
    that; so its interval is one for the expected score at this number of samples."""
    reference, scale = standard(8), torch.linspace(0.6, 1.4, 8)
    truth = 8 * 0.2**2 + float((scale - 1).square().sum())
    half = torch.eye(8, dtype=torch.float64)
    drawn = [shifted(400, 8, seed) for seed in range(300)]
    plain = [frechet.estimate(reference, x, half) for x in drawn]
    beyond = [frechet.extrapolated(reference, x, half) for x in drawn]
    expected = float(np.mean([one.value for one in plain]))
    assert expected > truth * 1.05

    def coverage(estimates: list[Estimate], value: float) -> float:
        return float(np.mean([low <= value <= high for low, high in (one.interval() for one in estimates)]))

    assert 0.91 < coverage(plain, expected) < 0.99  # 4 standard errors of a share of 300 around 0.95
    assert 0.91 < coverage(beyond, truth) < 0.99
    assert np.mean([one.value for one in beyond]) == pytest.approx(truth, abs=0.015)
    assert np.mean([one.se for one in plain]) == pytest.approx(np.std([one.value for one in plain]), rel=0.15)


def test_the_standard_error_is_that_of_a_bootstrap() -> None:
    x, reference = shifted(500, 6, 3), standard(6)
    found, random = frechet.estimate(reference, x), torch.Generator().manual_seed(0)
    drawn = [x[torch.randint(500, (500,), generator=random)] for _ in range(400)]
    values = [frechet.distance(reference, moments(one)) for one in drawn]
    assert found.se == pytest.approx(np.std(values), rel=0.12)
    assert np.mean(values) > found.value  # biased upward: not to be centred on


def test_a_paired_difference_is_sharper_and_agrees_with_a_joint_bootstrap() -> None:
    """Two methods on common random numbers: one a little worse than the other."""
    a, reference = shifted(500, 6, 4), standard(6)
    b = 0.97 * a + 0.02 * torch.randn(500, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    found, random = frechet.paired_difference(a, b, reference), torch.Generator().manual_seed(0)
    values = []
    for _ in range(300):
        index = torch.randint(500, (500,), generator=random)
        values.append(frechet.distance(reference, moments(a[index])) - frechet.distance(reference, moments(b[index])))
    assert found.se == pytest.approx(np.std(values), rel=0.15)
    assert found.se < frechet.estimate(reference, a).se / 3
    with pytest.raises(ValueError, match="500 and 400 samples cannot be paired"):
        frechet.paired_difference(a, b[:400], reference)


def test_extrapolation_needs_eight_samples_a_dimension_and_is_seeded() -> None:
    x, reference = shifted(48, 6, 0), standard(6)
    assert frechet.extrapolated(reference, x).value == frechet.extrapolated(reference, x).value
    with pytest.raises(ValueError, match="47 samples are fewer than 8 times the 6"):
        frechet.extrapolated(reference, x[:47])


def test_fewer_samples_than_dimensions_still_have_an_estimate() -> None:
    x, reference = shifted(20, 30, 0), moments(features(300, 30, 1))
    found = frechet.estimate(reference, x)
    assert found.value == pytest.approx(frechet.distance(reference, moments(x)), rel=1e-6)
    assert np.isfinite(found.influence).all()
