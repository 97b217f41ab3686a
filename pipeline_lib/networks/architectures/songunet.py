"""DDPM++ and NCSN++ (Song et al., 2021) as EDM builds them (Karras et al., 2022): 55.7M and 56.4M parameters.

The defaults are DDPM++ on CIFAR-10; NCSN++ is embedding fourier, encoder residual and resample_filter [1, 3, 3, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline_lib.config.models import positive
from pipeline_lib.networks.architectures import unet

if TYPE_CHECKING:
    from torch import nn

AUGMENT_LABELS = 9  # numbers that say how an image was flipped, scaled, turned, stretched and moved


def _even(taps: list[int]) -> list[int]:
    if len(taps) % 2 or sum(taps) <= 0:
        raise ValueError("a resampling filter has an even number of taps and a positive sum")
    return taps


class Options(unet.Options):
    """Options of the networks of EDM."""

    channel_mult: Annotated[list[int], AfterValidator(positive)] = Field(
        [2, 2, 2], min_length=1, description="channel multiplier at each resolution, each half of the one before"
    )
    res_blocks: int = Field(4, ge=1, description="residual blocks at each resolution")
    embedding: Literal["positional", "fourier"] = Field(
        "positional", description="of the noise level: sines at fixed rates (DDPM++) or random ones (NCSN++)"
    )
    encoder: Literal["standard", "residual"] = Field(
        "standard", description="residual: the image itself is added at each lower resolution (NCSN++)"
    )
    resample_filter: Annotated[list[int], AfterValidator(_even)] = Field(
        [1, 1], min_length=2, description="taps of the filter that halves and doubles the resolution"
    )
    augment: bool = Field(
        False, description="whether the network is told how an image was augmented, for objectives that augment"
    )


def build(options: Options, resolution: int, image_channels: int, outputs: int, classes: int) -> nn.Module:
    """The network; raises BadConfig where the resolution does not fit."""
    from pipeline_lib.networks.architectures._songunet import SongUNet

    return SongUNet(options, resolution, image_channels, outputs, classes)
