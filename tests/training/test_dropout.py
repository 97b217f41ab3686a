"""Masks of the parts of a batch are those of the whole."""

import pytest
import torch
from torch import nn

from pipeline_lib.training.dropout import SharedDropout, shared


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 2, 3)))


X = torch.randn(12, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("times", [1, 2])
def test_parts_drop_what_the_whole_drops(times: int) -> None:
    """Also where the network is given the batch several times in a row, and with its gradient."""
    plain = network()
    torch.manual_seed(5)
    x = X.repeat(times, 1, 1, 1).requires_grad_()
    (expected := plain(x)).square().sum().backward()
    part = shared(plain, total=12)
    for rows in (range(4), range(4, 8), range(8, 12)):
        part.begin(rows, seed=5, own=6)
        own = X[rows.start : rows.stop].repeat(times, 1, 1, 1).requires_grad_()
        (found := plain(own)).square().sum().backward()
        for values, whole in ((found, expected), (own.grad, x.grad)):
            assert torch.allclose(values.unflatten(0, (times, 4)), whole.unflatten(0, (times, 12))[:, rows], atol=1e-5)


def test_all_dropout_is_replaced_and_no_name_changes() -> None:
    plain = network()
    before = list(plain.state_dict())
    shared(plain, 12)
    assert list(plain.state_dict()) == before
    assert [m.p for m in plain.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.5]
    assert all(isinstance(m, SharedDropout) for m in plain.modules() if isinstance(m, nn.Dropout))


def test_other_images_have_masks_of_their_own() -> None:
    """Rollouts of some images: neither those of another part, nor those that the batch has had."""
    plain = network()[1:2]
    part, ones = shared(plain, 12), torch.ones(3, 2, 8, 8)

    def masks(rows: range, own: int) -> list[torch.Tensor]:
        part.begin(rows, seed=5, own=own)
        return [plain(ones[:count]) for count in (3, 2, 3)]

    first, again, other = masks(range(3), 6), masks(range(3), 6), masks(range(3, 6), 7)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[2])
    torch.manual_seed(5)
    assert torch.equal(first[0], nn.functional.dropout(torch.ones(12, 2, 8, 8), 0.3)[:3])


def test_nothing_is_dropped_when_not_training() -> None:
    plain = network().eval()
    expected = plain(X[:4])
    shared(plain, 12)
    assert torch.equal(plain.eval()(X[:4]), expected)
