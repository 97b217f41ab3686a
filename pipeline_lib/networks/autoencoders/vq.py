"""The autoencoder with a codebook (van den Oord et al., 2017): LDM-VQ of Rombach et al. (2022).

Diffusion learns the latents before quantisation; decoding quantises them first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.models import Autoencoder

if TYPE_CHECKING:
    from torch import nn


class Options(Autoencoder):
    """Options of the VQ-regularised autoencoder."""

    codes: int = Field(256, ge=2, description="vectors in the codebook")
    commitment: float = Field(0.25, ge=0, description="factor of the term that draws latents to their codes")


def build(options: Options, image_channels: int) -> nn.Module:
    """The autoencoder."""
    from pipeline_lib.networks.autoencoders._vq import VQAutoencoder

    return VQAutoencoder(options, image_channels)
