"""The modules of DDPM++ and NCSN++ with the settings of EDM (Karras et al., 2022, Table 7)."""

from math import pi, sqrt
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.networks.architectures._unet import check, group_norm, sinusoid
from pipeline_lib.networks.architectures.songunet import AUGMENT_LABELS, Options
from pipeline_lib.networks.layers import Dropout, activate, convolve, residual

M = TypeVar("M", nn.Conv2d, nn.Linear)
Resize = Literal["down", "up"] | None
HALF = sqrt(0.5)  # keeps the variance of a sum of two equal ones
SMALL, ATTENTION = 1e-5, sqrt(0.2)  # gains of what ends a branch, and of queries, keys and values
FOURIER_SCALE = 16


def started(module: M, gain: float = 1.0) -> M:
    """Weights uniform after Glorot, times gain; biases zero."""
    nn.init.xavier_uniform_(module.weight, gain)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def conv(channels: int, out: int, side: int = 3, gain: float = 1.0, padding: int | None = None) -> nn.Conv2d:
    """A convolution that keeps the resolution, unless `padding` says otherwise."""
    return started(nn.Conv2d(channels, out, side, padding=side // 2 if padding is None else padding), gain)


class Resample(nn.Module):
    """Halves or doubles the resolution with a fixed filter of unit sum."""

    taps: Tensor

    def __init__(self, resize: Resize, taps: list[int], padded: bool = True) -> None:
        """`padded`: zeros around the image, so that the resolution is exactly halved or doubled."""
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("taps", torch.outer(line, line) / line.sum() ** 2, persistent=False)
        self.resize, self.padding = resize, (len(taps) - 1) // 2 if padded else 0

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.taps.to(x.dtype).expand(channels, 1, -1, -1)
        if self.resize == "down":
            return F.conv2d(x, kernel, stride=2, padding=self.padding, groups=channels)
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=self.padding, groups=channels)


class Attention(nn.Module):
    """One-head self-attention over pixels; input and result are averaged so that the variance stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = conv(channels, 3 * channels, 1, ATTENTION)
        self.out = conv(channels, channels, 1, SMALL)

    def forward(self, x: Tensor) -> Tensor:
        h, x = activate(self.norm, x, silu=False)
        q, k, v = convolve(self.qkv, h).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return residual(x, nn.Identity(), h.transpose(1, 2).reshape(x.shape), self.out, HALF)


class Block(nn.Module):
    """Two convolutions with the embedding added between them, beside a shortcut; it may change the resolution."""

    def __init__(self, channels: int, out: int, options: Options, resize: Resize = None, attend: bool = False) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels), conv(channels, out)
        self.embed = started(nn.Linear(4 * options.channels, out))
        self.norm2, self.conv2 = group_norm(out), conv(out, out, gain=SMALL)
        self.dropout = Dropout(options.dropout)
        self.resample = Resample(resize, options.resample_filter) if resize else nn.Identity()
        self.shortcut = conv(channels, out, 1) if resize or channels != out else nn.Identity()
        self.attention = Attention(out) if attend else nn.Identity()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], embedding: Tensor) -> Tensor:
        h, joined = activate(self.norm1, x)
        h, kept = self.resample(h), self.resample(joined)
        h, _ = activate(self.norm2, h, self.embed(embedding), dropout=self.dropout, conv=self.conv1)
        return self.attention(residual(kept, self.shortcut, h, self.conv2, HALF))


class Shrink(nn.Module):
    """The image at half the resolution and in more channels: convolved, then filtered, as in NCSN++."""

    def __init__(self, channels: int, out: int, taps: list[int]) -> None:
        super().__init__()
        # all zeros are put around before the convolution, so that the filter sees no edge of its own
        self.conv = conv(channels, out, padding=1 + (len(taps) - 1) // 2)
        self.resample = Resample("down", taps, padded=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.resample(convolve(self.conv, image))


class Embedding(nn.Module):
    """Noise level, labels and augmentation as one vector (B, 4 channels)."""

    rates: Tensor

    def __init__(self, options: Options, classes: int) -> None:
        super().__init__()
        fourier = options.embedding == "fourier"
        self.channels = options.channels * (2 if fourier else 1)
        rates = torch.randn(self.channels // 2) * FOURIER_SCALE
        self.register_buffer("rates", rates if fourier else None)
        self.label = started(nn.Linear(classes, self.channels)) if options.conditional else None
        self.augment = started(nn.Linear(AUGMENT_LABELS, self.channels, bias=False)) if options.augment else None
        self.first = started(nn.Linear(self.channels, 4 * options.channels))
        self.second = started(nn.Linear(4 * options.channels, 4 * options.channels))

    def forward(self, t: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        embedding = self._noise(t)
        if self.label is not None:
            assert labels is not None, "a conditional network needs labels"
            classes = self.label.in_features
            embedding = embedding + self.label(F.one_hot(labels, classes).to(t.dtype) * sqrt(classes))
        if augment is not None:
            assert self.augment is not None, "this network has no input for augmentation"
            embedding = embedding + self.augment(augment)
        return F.silu(self.second(F.silu(self.first(embedding))))

    def _noise(self, t: Tensor) -> Tensor:
        if self.rates is None:
            return sinusoid(t, self.channels)
        angles = 2 * pi * t[:, None] * self.rates
        return torch.cat((angles.sin(), angles.cos()), dim=1)


class SongUNet(nn.Module):
    """x (B,C,H,W), t (B,), labels (B,) or None, augmentation (B, 9) or None (not augmented) -> (B, outputs, H, W)."""

    def __init__(self, options: Options, resolution: int, image_channels: int, outputs: int, classes: int = 0) -> None:
        """Raises BadConfig where the resolution does not fit, or there are no labels to condition on."""
        super().__init__()
        check(options, resolution, classes)
        self.embedding = Embedding(options, classes)
        self.first = conv(image_channels, options.channels)
        widths = [options.channels * m for m in options.channel_mult]
        attends = [resolution >> i in options.attention_resolutions for i in range(len(widths))]
        skips, channels, image = [options.channels], options.channels, image_channels
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (width, attend) in enumerate(zip(widths, attends, strict=True)):
            if i:
                self.down.append(Block(channels, channels, options, "down"))
                if options.encoder == "residual":
                    self.down.append(Shrink(image, channels, options.resample_filter))
                    image = channels
                skips.append(channels)
            for _ in range(options.res_blocks):
                self.down.append(Block(channels, width, options, attend=attend))
                channels = width
                skips.append(channels)
        self.middle = nn.ModuleList(Block(channels, channels, options, attend=attend) for attend in (True, False))
        for i, (width, attend) in reversed(list(enumerate(zip(widths, attends, strict=True)))):
            for j in range(options.res_blocks + 1):
                last = j == options.res_blocks
                self.up.append(Block(channels + skips.pop(), width, options, attend=attend and last))
                channels = width
            if i:
                self.up.append(Block(channels, channels, options, "up"))
        self.norm, self.last = group_norm(channels), conv(channels, outputs, gain=SMALL)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        embedding, image = self.embedding(t, labels, augment), x
        x = convolve(self.first, x)
        skips = [x]
        for layer in self.down:
            if isinstance(layer, Shrink):
                x = image = skips[-1] = (x + layer(image)) * HALF
            else:
                x = layer(x, embedding)
                skips.append(x)
        for layer in self.middle:
            x = layer(x, embedding)
        for layer in self.up:
            x = layer(x if isinstance(layer.resample, Resample) else (x, skips.pop()), embedding)
        return convolve(self.last, activate(self.norm, x)[0])
