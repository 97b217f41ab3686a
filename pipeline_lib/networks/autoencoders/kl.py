"""The autoencoder with a Gaussian latent, held lightly to N(0, I): LDM-KL of Rombach et al. (2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.models import Autoencoder

if TYPE_CHECKING:
    from torch import nn


class Options(Autoencoder):
    """Options of the KL-regularised autoencoder."""

    weight: float = Field(
        1e-6, ge=0, description="factor of the KL divergence to N(0, I), summed over a latent, beside the summed error"
    )


def build(options: Options, image_channels: int) -> nn.Module:
    """The autoencoder."""
    from pipeline_lib.networks.autoencoders._kl import KLAutoencoder

    return KLAutoencoder(options, image_channels)
