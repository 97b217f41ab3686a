"""The Frechet distance against closed forms, torch-fidelity and scipy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pipeline_lib.exits import BadData
from pipeline_lib.scores import _torchvision, frechet
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
