"""The published parameter count, shapes, and what does not fit."""

import pytest
import torch

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures.unet import Options, build

SMALL = Options(channels=8, channel_mult=[1, 2], res_blocks=1, attention_resolutions=[4], dropout=0.0)


def test_cifar_network_has_the_published_size() -> None:
    """35.7M parameters (Ho et al., 2020, App. B); the exact count is that of the converted published weights."""
    assert sum(p.numel() for p in build(Options(), 32, 3, 3, 0).parameters()) == 35_746_307


def test_output_has_the_shape_of_the_image_and_starts_at_zero() -> None:
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(build(SMALL, 8, 1, 1, 0)(x, torch.tensor([1.0, 5.0])), torch.zeros(2, 1, 8, 8))


def test_celeba_network_has_the_published_size() -> None:
    """78.7M parameters (Song et al., 2021, the repository of DDIM)."""
    with torch.device("meta"):
        network = build(Options(channel_mult=[1, 2, 2, 2, 4]), 64, 3, 3, 0)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 78.7


def test_labels_change_the_output() -> None:
    network = build(SMALL.model_copy(update={"conditional": True}), 8, 1, 1, 3)
    torch.nn.init.normal_(network.last.weight)
    torch.nn.init.normal_(network.up[0].block.conv2.weight)
    x, t = torch.randn(1, 1, 8, 8), torch.ones(1)
    one, two = (network(x, t, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("network", "resolution", "sentence"),
    [
        (SMALL, 9, "halves the image 1 times, which a resolution of 9"),
        (SMALL.model_copy(update={"attention_resolutions": [16]}), 8, "never occur"),
        (SMALL.model_copy(update={"conditional": True}), 8, "no labels"),
    ],
)
def test_what_does_not_fit_is_refused(network: Options, resolution: int, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        build(network, resolution, 1, 1, 0)
