"""The classifier of noisy images: a published parameter count, its pool against torch's attention, what it refuses."""

import pytest
import torch

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures._encoder import AttentionPool
from pipeline_lib.networks.architectures.encoder import Options, build

SMALL = Options(channels=8, channel_mult=[1, 2], res_blocks=1, attention_resolutions=[4], head_channels=4)


@pytest.mark.parametrize(
    ("options", "resolution", "count"),
    [
        ({"channel_mult": [1, 1, 2, 2, 4, 4]}, 256, 54_096_360),  # ADM-G 608M less ADM 554M (Rombach et al., 2022)
        ({}, 128, 42_568_040),  # no published count is known
    ],
)
def test_parameter_counts(options: dict[str, list[int]], resolution: int, count: int) -> None:
    with torch.device("meta"):
        network = build(Options(**options), resolution, 3, 6, 1000)
    assert sum(p.numel() for p in network.parameters()) == count


def test_logits_depend_on_t_and_on_their_image_alone() -> None:
    network = build(SMALL, 8, 1, 1, 5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1.0, 5.0, 50.0])
    one, other = network(x, t), network(x, t + 100)
    assert one.shape == (3, 5)
    assert not torch.allclose(one, other)
    assert torch.allclose(network(x[:2], t[:2]), one[:2], atol=1e-6)  # images do not see each other


def test_the_pool_is_attention_of_the_mean_pixel_as_torch_has_it() -> None:
    """torch.nn.MultiheadAttention, which has other code, with the same weights, asked with the first token alone."""
    ours, theirs = AttentionPool(3, 12, 3, 7), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(torch.eye(12))
        theirs.out_proj.bias.zero_()
    x = torch.randn(2, 12, 3, 3)
    pixels = x.flatten(2).transpose(1, 2)
    tokens = torch.cat((pixels.mean(1, keepdim=True), pixels), 1) + ours.place
    found, _ = theirs(tokens[:, :1], tokens, tokens)
    assert torch.allclose(ours(x), ours.out(found[:, 0]), atol=1e-6)


def test_a_dataset_without_labels_is_refused() -> None:
    with pytest.raises(BadConfig, match="needs labels, which the dataset has not"):
        build(SMALL, 8, 1, 1, 0)
