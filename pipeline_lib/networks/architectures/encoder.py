"""The classifier of noisy images of Dhariwal and Nichol (2021), Sec. 4: the downward half of their U-Net and a pool.

54.1M parameters at its setting for ImageNet 256x256. Its output is no image but logits (B, classes): it serves the
objective noisy-classifier alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from pipeline_lib.config.models import positive
from pipeline_lib.networks.architectures import adm

if TYPE_CHECKING:
    from torch import nn


class Options(adm.Options):
    """Options of the classifier; the defaults are those for ImageNet 128x128 [memory, high: released commands]."""

    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate inside residual blocks")
    channel_mult: Annotated[list[int], AfterValidator(positive)] = Field(
        [1, 1, 2, 3, 4], min_length=1, description="channel multiplier at each resolution, each half of the one before"
    )
    res_blocks: int = Field(2, ge=1, description="residual blocks at each resolution")
    attention_resolutions: list[int] = Field(
        [32, 16, 8], description="side lengths in pixels at which self-attention is used"
    )
    head_channels: int = Field(
        64, ge=1, description="channels of an attention head; a narrower layer has one head of all its channels"
    )


def build(options: Options, resolution: int, image_channels: int, outputs: int, classes: int) -> nn.Module:
    """The network, with `classes` logits in place of `outputs` channels; raises BadConfig where something is unfit."""
    from pipeline_lib.networks.architectures._encoder import Encoder

    return Encoder(options, resolution, image_channels, classes)
