"""The U-Net of Ho et al. (2020), App. B: 35.7M parameters at its CIFAR-10 setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from pipeline_lib.config.models import Network, positive

if TYPE_CHECKING:
    from torch import nn


class Options(Network):
    """Options of the U-Net."""

    channels: int = Field(128, ge=8, multiple_of=4, description="channels at full resolution")
    channel_mult: Annotated[list[int], AfterValidator(positive)] = Field(
        [1, 2, 2, 2], min_length=1, description="channel multiplier at each resolution, each half of the one before"
    )
    res_blocks: int = Field(2, ge=1, description="residual blocks at each resolution")
    attention_resolutions: list[int] = Field([16], description="side lengths in pixels at which self-attention is used")


def build(options: Options, resolution: int, image_channels: int, outputs: int, classes: int) -> nn.Module:
    """The network; raises BadConfig where the resolution does not fit."""
    from pipeline_lib.networks.architectures._unet import UNet

    return UNet(options, resolution, image_channels, outputs, classes)
