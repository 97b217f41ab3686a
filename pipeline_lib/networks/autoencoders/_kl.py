"""The module of the KL-regularised autoencoder."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pipeline_lib.networks.autoencoders._codec import decoder, encoder
from pipeline_lib.networks.autoencoders.kl import Options

LOG_VARIANCE = (-30.0, 20.0)  # what exp can take in float32


class KLAutoencoder(nn.Module):
    """The encoder gives mean and log variance; `encode` gives the mean."""

    def __init__(self, options: Options, image_channels: int) -> None:
        super().__init__()
        self.weight = options.weight
        self.encoder = encoder(options, image_channels, 2 * options.latent_channels)
        self.decoder = decoder(options, image_channels)

    def encode(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> mean (B,L,H/f,W/f)."""
        return self.encoder(x).chunk(2, dim=1)[0]

    def decode(self, z: Tensor) -> Tensor:
        """(B,L,H/f,W/f) -> (B,C,H,W)."""
        return self.decoder(z)

    def forward(self, x: Tensor, normal: Callable[[Sequence[int]], Tensor]) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCE)
        z = mean + (log_variance / 2).exp() * normal(mean.shape[1:])
        per_pixel = self.weight / x[0].numel()  # the error is a mean over pixels, so the sum of the KL is divided too
        return self.decoder(z), per_pixel * kl_to_standard_normal(mean, log_variance)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) of each image (B,), in nats, summed over its latent."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
