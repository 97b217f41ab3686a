"""The modules of the U-Net of Ho et al. (2020)."""

from math import log
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures.unet import Options
from pipeline_lib.networks.layers import Dropout, activate, convolve, doubled, residual

M = TypeVar("M", bound=nn.Module)


def sinusoid(t: Tensor, channels: int, reached: bool = True) -> Tensor:
    """(B,) -> (B, channels): sines and cosines at wavelengths from 2 pi to 10,000 * 2 pi, which is `reached` or not."""
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=t.device) * (-log(10_000) / (half - 1 if reached else half)))
    angles = t.float()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def group_norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """32 groups as published; narrower networks keep at least 4 channels in a group."""
    groups = next(g for g in range(min(32, max(channels // 4, 1)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps)


def zeroed(module: M) -> M:
    """The module with all parameters zero, so that its branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Two convolutions with the embedding added between them, beside a shortcut."""

    def __init__(self, channels: int, out: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.embed = nn.Linear(embedding, out)
        self.norm2, self.conv2 = group_norm(out), zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.dropout = Dropout(dropout)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], embedding: Tensor) -> Tensor:
        h, x = activate(self.norm1, x)
        h, _ = activate(self.norm2, h, self.embed(embedding), dropout=self.dropout, conv=self.conv1)
        return residual(x, self.shortcut, h, self.conv2)


class Attention(nn.Module):
    """One-head self-attention over pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h, x = activate(self.norm, x, silu=False)
        q, k, v = convolve(self.qkv, h).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return residual(x, nn.Identity(), h.transpose(1, 2).reshape(x.shape), self.out)


class Level(nn.Module):
    """A residual block, with attention behind it where the resolution asks for it."""

    def __init__(self, channels: int, out: int, embedding: int, dropout: float, attend: bool) -> None:
        super().__init__()
        self.block = ResBlock(channels, out, embedding, dropout)
        self.attention = Attention(out) if attend else nn.Identity()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv, doubled(x))


class UNet(nn.Module):
    """x (B,C,H,W), t (B,), labels (B,) or None -> (B, outputs, H, W)."""

    def __init__(self, config: Options, resolution: int, image_channels: int, outputs: int, classes: int = 0) -> None:
        """`classes` > 0 adds a label embedding. Raises BadConfig where the resolution does not fit."""
        super().__init__()
        check(config, resolution, classes)
        base, embedding = config.channels, 4 * config.channels
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes, embedding) if config.conditional else None
        self.first = nn.Conv2d(image_channels, base, 3, padding=1)

        widths = [base * m for m in config.channel_mult]
        sides = [resolution >> i for i in range(len(widths))]
        skips, channels = [base], base
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (width, side) in enumerate(zip(widths, sides, strict=True)):
            for _ in range(config.res_blocks):
                attend = side in config.attention_resolutions
                self.down.append(Level(channels, width, embedding, config.dropout, attend))
                channels = width
                skips.append(channels)
            if i < len(widths) - 1:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)
        self.middle = nn.ModuleList(
            Level(channels, channels, embedding, config.dropout, attend) for attend in (True, False)
        )
        for i, (width, side) in reversed(list(enumerate(zip(widths, sides, strict=True)))):
            for _ in range(config.res_blocks + 1):
                attend = side in config.attention_resolutions
                self.up.append(Level(channels + skips.pop(), width, embedding, config.dropout, attend))
                channels = width
            if i > 0:
                self.up.append(Upsample(channels))
        self.norm, self.last = group_norm(channels), zeroed(nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.time(sinusoid(t, self.base))
        if self.label is not None:
            assert labels is not None, "a conditional network needs labels"
            embedding = embedding + self.label(labels)
        embedding = F.silu(embedding)
        x = convolve(self.first, x)
        skips = [x]
        for layer in self.down:
            x = convolve(layer, x) if isinstance(layer, nn.Conv2d) else layer(x, embedding)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, embedding)
        for layer in self.up:
            x = layer((x, skips.pop()), embedding) if isinstance(layer, Level) else layer(x)
        return convolve(self.last, activate(self.norm, x)[0])


def check(config: Options, resolution: int, classes: int) -> None:
    """Raise BadConfig where resolution, attention or labels do not fit what both U-Nets are made of."""
    halvings = len(config.channel_mult) - 1
    if resolution % 2**halvings:
        raise BadConfig(
            f"the network halves the image {halvings} times, which a resolution of {resolution} does not allow: "
            f"shorten network.channel_mult, or resize the data to a multiple of {2**halvings}."
        )
    sides = [resolution >> i for i in range(halvings + 1)]
    if config.attention_resolutions and not set(sides) & set(config.attention_resolutions):
        raise BadConfig(
            f"network.attention_resolutions {config.attention_resolutions} never occur; the resolutions are {sides}."
        )
    if config.conditional and not classes:
        raise BadConfig("network.conditional is on, but the dataset has no labels.")
