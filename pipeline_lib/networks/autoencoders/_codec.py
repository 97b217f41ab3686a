"""Encoder and decoder of all autoencoders (Esser et al., 2021, without their redundant 1x1 convolutions)."""

from itertools import pairwise

from torch import Tensor, nn

from pipeline_lib.config.models import Autoencoder
from pipeline_lib.networks.architectures._unet import Attention, Upsample, group_norm


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, out, 3, padding=1),
            group_norm(out),
            nn.SiLU(),
            nn.Conv2d(out, out, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


def encoder(options: Autoencoder, image_channels: int, out: int) -> nn.Sequential:
    """(B, image_channels, H, W) -> (B, out, H/f, W/f)."""
    widths = _widths(options)
    layers: list[nn.Module] = [nn.Conv2d(image_channels, widths[0], 3, padding=1)]
    for before, width in pairwise([widths[0], *widths]):
        if len(layers) > 1:
            layers.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
        layers += _blocks(before, width, options.res_blocks)
    return nn.Sequential(*layers, *_middle(widths[-1]), *_last(widths[-1], out))


def decoder(options: Autoencoder, image_channels: int) -> nn.Sequential:
    """(B, latent_channels, H/f, W/f) -> (B, image_channels, H, W)."""
    widths = _widths(options)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(options.latent_channels, widths[0], 3, padding=1), *_middle(widths[0])]
    for i, (before, width) in enumerate(pairwise([widths[0], *widths])):
        if i > 0:
            layers.append(Upsample(before))
        layers += _blocks(before, width, options.res_blocks + 1)
    return nn.Sequential(*layers, *_last(widths[-1], image_channels))


def _widths(options: Autoencoder) -> list[int]:
    return [options.channels * m for m in options.channel_mult]


def _blocks(channels: int, out: int, count: int) -> list[nn.Module]:
    return [ResBlock(channels if i == 0 else out, out) for i in range(count)]


def _middle(channels: int) -> list[nn.Module]:
    return [ResBlock(channels, channels), Attention(channels), ResBlock(channels, channels)]


def _last(channels: int, out: int) -> list[nn.Module]:
    return [group_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)]
