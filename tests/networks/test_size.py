"""The count without torch against the network itself."""

import pytest

from pipeline_lib.config.models import Network
from pipeline_lib.networks.size import parameters
from pipeline_lib.networks.unet import build

NARROW = {"channels": 8, "dropout": 0.0}


@pytest.mark.parametrize(
    ("options", "resolution", "channels"),
    [
        ({}, 32, 3),
        ({**NARROW, "channel_mult": [1, 2, 2, 2, 4]}, 64, 3),
        ({**NARROW, "channel_mult": [1, 2, 2, 4, 4], "res_blocks": 3, "attention_resolutions": [16, 8]}, 128, 3),
        ({**NARROW, "channel_mult": [2, 1], "res_blocks": 1, "attention_resolutions": [8]}, 8, 1),
        ({**NARROW, "channel_mult": [1], "attention_resolutions": []}, 8, 1),
    ],
)
def test_it_is_the_count_of_the_network(options: dict[str, object], resolution: int, channels: int) -> None:
    config = Network.model_validate(options)
    network = build(config, resolution, channels, 0, 0)
    assert parameters(config, resolution, channels) == sum(p.numel() for p in network.parameters())


def test_celeba_network_has_the_published_size() -> None:
    """78.7M parameters (Song et al., 2021, the repository of DDIM)."""
    assert round(parameters(Network(channel_mult=[1, 2, 2, 2, 4]), 64, 3) / 1e6, 1) == 78.7
