"""Published parameter counts, attention against torch's own, how the embedding enters, and what does not fit."""

from typing import Any

import pytest
import torch

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures._adm import Attention, ResBlock
from pipeline_lib.networks.architectures.adm import Options, build

SMALL = Options(channels=8, channel_mult=[1, 2], res_blocks=1, attention_resolutions=[4], dropout=0.0, head_channels=4)
SIDE_64: dict[str, Any] = {
    "channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "attention_resolutions": [32, 16, 8],
    "head_channels": 64,
}
SIDE_128: dict[str, Any] = {**SIDE_64, "channels": 256, "channel_mult": [1, 1, 2, 3, 4]}
LABELS: dict[str, Any] = {"conditional": True}
GUIDED: dict[str, Any] = {**SIDE_128, **LABELS, "res_blocks": 2, "heads": 4}


@pytest.mark.parametrize(
    ("options", "resolution", "count", "millions"),
    [
        ({}, 32, 57_094_662, 57.1),  # CIFAR-10, Ning et al. (2023)
        ({"scale_shift_norm": False}, 32, 52_892_166, 52.9),  # ImageNet 32x32, the same
        ({**SIDE_64, **LABELS}, 64, 295_904_454, 295.9),  # ImageNet 64x64, Dhariwal and Nichol: 296M
        (SIDE_64, 64, 295_136_454, 295.1),  # CelebA and LSUN tower, Ning et al. (2023): without labels
        (GUIDED, 128, 421_529_606, 421.5),  # ImageNet 128x128, Dhariwal and Nichol
        (SIDE_128, 128, 542_811_398, 542.8),  # FFHQ, Ning et al. (2023); no published count is known
    ],
)
def test_parameter_counts(options: dict[str, Any], resolution: int, count: int, millions: float) -> None:
    with torch.device("meta"):
        network = build(Options(**options), resolution, 3, 6, 1000)
    found = sum(p.numel() for p in network.parameters())
    assert found == count
    assert round(found / 1e6, 1) == millions


@pytest.mark.parametrize("scale_shift_norm", [True, False])
def test_output_has_its_channels_and_starts_at_zero(scale_shift_norm: bool) -> None:
    network = build(SMALL.model_copy(update={"scale_shift_norm": scale_shift_norm}), 8, 1, 2, 0)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 5.0])
    assert torch.equal(network(x, t), torch.zeros(2, 2, 8, 8))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    one, other = network(x, t), network(x, t + 100)
    assert one.shape == (2, 2, 8, 8)
    assert not torch.allclose(one, other)


def test_attention_is_that_of_torch() -> None:
    """As torch.nn.MultiheadAttention, which has other code, with the same weights."""
    ours = Attention(12, Options(head_channels=4))
    torch.nn.init.normal_(ours.out.weight)
    torch.nn.init.normal_(ours.out.bias)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight[:, :, 0, 0])
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 12, 3, 5)
    pixels = ours.norm(x).flatten(2).transpose(1, 2)
    expected = x + theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
    assert torch.allclose(ours(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "heads"), [({"head_channels": 4}, 6), ({"head_channels": 64}, 1), ({"heads": 4}, 4), ({}, 1)]
)
def test_number_of_heads(given: dict[str, Any], heads: int) -> None:
    assert Attention(24, Options(**given)).heads == heads


def test_scale_shift_normalisation_is_what_it_is_called() -> None:
    block = ResBlock(8, 8, 4, Options(dropout=0.0), torch.nn.Identity())
    torch.nn.init.normal_(block.conv2.weight)
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 4)
    scale, shift = block.embed(embedding)[:, :, None, None].split(8, dim=1)
    hidden = block.norm2(block.conv1(torch.nn.functional.silu(block.norm1(x)))) * (1 + scale) + shift
    assert torch.allclose(block(x, embedding), x + block.conv2(torch.nn.functional.silu(hidden)), atol=1e-6)


@pytest.mark.parametrize(("resample", "side"), [(torch.nn.AvgPool2d(2), 2), (torch.nn.Upsample(scale_factor=2), 8)])
def test_a_new_block_resamples_and_does_nothing_else(resample: torch.nn.Module, side: int) -> None:
    """Its second convolution starts at zero, so the shortcut alone is left."""
    x = torch.randn(2, 8, 4, 4)
    out = ResBlock(8, 8, 4, SMALL, resample)(x, torch.randn(2, 4))
    assert out.shape[-1] == side
    assert torch.equal(out, resample(x))


def test_labels_change_the_output() -> None:
    network = build(SMALL.model_copy(update=LABELS), 8, 1, 1, 3)
    torch.nn.init.normal_(network.last.weight)
    torch.nn.init.normal_(network.up[0].block.conv2.weight)
    x, t = torch.randn(1, 1, 8, 8), torch.ones(1)
    one, two = (network(x, t, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("changes", "resolution", "sentence"),
    [
        ({}, 9, "halves the image 1 times, which a resolution of 9"),
        ({"attention_resolutions": [16]}, 8, "never occur"),
        (LABELS, 8, "no labels"),
        ({"head_channels": 6}, 8, "network.head_channels is 6, which does not divide the 16 channels"),
        ({"heads": 3}, 8, "network.heads is 3, which does not divide the 16 channels"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], resolution: int, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        build(SMALL.model_copy(update=changes), resolution, 1, 1, 0)


def test_times_and_normalisation_are_those_of_the_released_code() -> None:
    """Wavelengths 2 pi 10,000^(i / half) for i < half, the longest not reached; an epsilon of 1e-5 everywhere."""
    network = build(Options(channels=8, channel_mult=[1], res_blocks=1, attention_resolutions=[]), 8, 3, 3, 0)
    seen = []
    network.time.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(torch.zeros(1, 3, 8, 8), torch.tensor([500.0]))
    angles = 500 / 10_000 ** (torch.arange(4) / 4)
    assert torch.allclose(seen[0][0], torch.cat((angles.sin(), angles.cos())), atol=1e-4)
    assert {module.eps for module in network.modules() if isinstance(module, torch.nn.GroupNorm)} == {1e-5}
