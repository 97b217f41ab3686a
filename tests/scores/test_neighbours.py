"""Precision, recall and nearest neighbours against torch-fidelity, a plain loop, and sets whose answer is known."""

import pytest
import torch

from pipeline_lib.scores import _torchvision, neighbours
from pipeline_lib.scores.neighbours import covered, nearest, radii


def drawn(count: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("size", [1, 700, 2**24])
def test_equals_torch_fidelity_whatever_the_block(size: int) -> None:
    _torchvision.ensure()
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    samples, real = drawn(300, 8, 0, 0.5), drawn(300, 8, 1)
    theirs = prc_features_to_metric(samples, real, prc_neighborhood=3, prc_batch_size=100, verbose=False)
    precision = covered(samples, real, radii(real, size=size), size).double().mean()
    recall = covered(real, samples, radii(samples, size=size), size).double().mean()
    assert (float(precision), float(recall)) == (
        pytest.approx(theirs[KEY_METRIC_PRECISION], abs=1e-6),
        pytest.approx(theirs[KEY_METRIC_RECALL], abs=1e-6),
    )
    assert 0.2 < float(precision) < 0.99


def test_a_set_on_a_line_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])
    assert radii(points, k=2).sqrt().tolist() == pytest.approx([2, 1, 1, 2, 8], abs=1e-3)
    within = radii(points, k=2)
    assert covered(torch.tensor([[-1.5], [-2.5], [1.5], [17.0]]), points, within).tolist() == [True, False, True, True]


def test_a_collapsed_set_is_precise_and_recalls_little() -> None:
    real, collapsed = drawn(400, 4, 0), 0.1 * drawn(400, 4, 1)
    assert covered(collapsed, real, radii(real)).double().mean() > 0.95
    assert covered(real, collapsed, radii(collapsed)).double().mean() < 0.05


def test_nearest_is_that_of_a_plain_loop_far_from_the_origin() -> None:
    x, points = drawn(50, 16, 0) + 1000, drawn(70, 16, 1) + 1000
    expected = torch.cdist(x.double(), points.double()).amin(1).float()
    torch.testing.assert_close(nearest(x, points, 128), expected, rtol=1e-4, atol=0)


def test_a_block_bounds_the_memory() -> None:
    sizes = [block.shape for block in neighbours.blocks(drawn(100, 3, 0), drawn(40, 3, 1), 400)]
    assert max(a * b for a, b in sizes) <= 400
    assert sum(a for a, _ in sizes) == 100


def test_too_few_points_have_no_radius() -> None:
    with pytest.raises(ValueError, match="3 points have no 3-th neighbour"):
        radii(drawn(3, 2, 0))
