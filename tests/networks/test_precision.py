"""Networks in bfloat16, and networks that are recorded."""

import pytest
import torch
from torch import nn

from pipeline_lib.device import has_kernels
from pipeline_lib.networks.precision import Halved
from pipeline_lib.networks.replay import FIRST, Replay

on_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and has_kernels()), reason="needs a GPU with Triton")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 16, 5))


def test_convolutions_and_linear_layers_are_halved_and_nothing_else() -> None:
    own = network()
    halved = Halved(own)
    dtypes = {name: p.dtype for name, p in halved.network.named_parameters()}
    half = {"0.weight", "3.weight", "3.bias"}
    assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == half
    assert all(p.dtype == torch.float32 for p in own.parameters())
    shared = {name for name, p in halved.network.named_parameters() if any(p is q for q in own.parameters())}
    assert shared == set(dtypes) - half
    assert [name for name, _ in own.named_parameters()] == list(dtypes)


def test_a_refresh_takes_over_the_weights() -> None:
    own = network()
    halved = Halved(own)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(1)
    halved.refresh()
    for mine, theirs in zip(own.parameters(), halved.network.parameters(), strict=True):
        assert torch.equal(mine.to(theirs.dtype), theirs)
    x = torch.randn(2, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = halved.network(x).float()
    assert float((close - own(x)).norm() / own(x).norm()) < 0.02


@on_gpu
def test_a_recording_gives_what_the_network_gives() -> None:
    own = network().cuda().eval()
    replay = Replay(own).eval()
    with torch.no_grad():
        for count in (4, 2):
            for _ in range(FIRST + 3):
                x = torch.randn(count, 3, 4, 4, device="cuda")
                assert torch.allclose(replay(x), own(x), atol=1e-6)
        assert len(replay.recordings) == 2
        first, second = replay(x), replay(x + 1)
        assert not torch.equal(first, second)  # an output is not overwritten by the next call
