"""The U-Net of Dhariwal and Nichol (2021), Sec. 3: 57.1M parameters at its CIFAR-10 setting (Ning et al., 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.networks.architectures import unet

if TYPE_CHECKING:
    from torch import nn


class Options(unet.Options):
    """Options of the ADM U-Net; the defaults are those for CIFAR-10 [found: code of Ning et al., 2023]."""

    dropout: float = Field(0.3, ge=0, lt=1, description="dropout rate inside residual blocks")
    res_blocks: int = Field(3, ge=1, description="residual blocks at each resolution")
    attention_resolutions: list[int] = Field(
        [16, 8], description="side lengths in pixels at which self-attention is used"
    )
    head_channels: int = Field(
        32, ge=1, description="channels of an attention head; a narrower layer has one head of all its channels"
    )
    heads: int | None = Field(None, ge=1, description="attention heads at every resolution, instead of head_channels")
    scale_shift_norm: bool = Field(
        True, description="whether the embedding scales and shifts the second normalisation, or is added before it"
    )


def build(options: Options, resolution: int, image_channels: int, outputs: int, classes: int) -> nn.Module:
    """The network; raises BadConfig where the resolution or the attention heads do not fit."""
    from pipeline_lib.networks.architectures._adm import ADM

    return ADM(options, resolution, image_channels, outputs, classes)
