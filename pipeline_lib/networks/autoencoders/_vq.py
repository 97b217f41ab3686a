"""The module of the VQ-regularised autoencoder."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.networks.autoencoders._codec import decoder, encoder
from pipeline_lib.networks.autoencoders.vq import Options


class VQAutoencoder(nn.Module):
    """Every pixel of a latent is replaced by the nearest vector of a codebook before it is decoded."""

    def __init__(self, options: Options, image_channels: int) -> None:
        super().__init__()
        self.commitment = options.commitment
        self.encoder = encoder(options, image_channels, options.latent_channels)
        self.decoder = decoder(options, image_channels)
        self.codebook = nn.Embedding(options.codes, options.latent_channels)
        nn.init.uniform_(self.codebook.weight, -1 / options.codes, 1 / options.codes)

    def encode(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> latents before quantisation (B,L,H/f,W/f)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents, quantised here, (B,L,H/f,W/f) -> (B,C,H,W)."""
        return self.decoder(self.quantise(z))

    def quantise(self, z: Tensor) -> Tensor:
        """Each vector over the channels of z (B,L,H,W) -> the nearest code, differentiable in the code."""
        codes = self.codebook.weight.detach()
        halves = codes.square().sum(1) / 2  # |z - e|^2 / 2 without |z|^2 / 2, which all codes share
        images = z.detach().movedim(1, -1)  # one at a time: with 8192 codes the distances of 64 take 9 GB
        nearest = torch.stack([(halves - vectors @ codes.T).argmin(-1) for vectors in images])
        return self.codebook(nearest).movedim(-1, 1)

    def forward(self, x: Tensor, normal: Callable[[Sequence[int]], Tensor]) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        quantised = self.quantise(z)
        return self.decoder(straight_through(z, quantised)), self.penalty(z, quantised).flatten(1).mean(1)

    def penalty(self, z: Tensor, quantised: Tensor) -> Tensor:
        """Codes are drawn to latents, and latents to codes by `commitment` as much (van den Oord et al., Eq. 3)."""
        return (quantised - z.detach()) ** 2 + self.commitment * (quantised.detach() - z) ** 2


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """The value of `quantised`, with the gradient handed to z as it is."""
    return z + (quantised - z).detach()
