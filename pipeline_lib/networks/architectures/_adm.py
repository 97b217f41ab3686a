"""The modules of the U-Net of Dhariwal and Nichol (2021)."""

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures import _unet
from pipeline_lib.networks.architectures._unet import check, sinusoid, zeroed
from pipeline_lib.networks.architectures.adm import Options
from pipeline_lib.networks.layers import Dropout, activate, convolve, doubled, residual

EPS = 1e-5  # of group normalisation: torch's default, which the released code keeps [memory, high]


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups as published; narrower networks keep at least 4 channels in a group."""
    return _unet.group_norm(channels, EPS)


class Doubling(nn.Module):
    """Twice the resolution, by nearest neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return doubled(x)


class ResBlock(nn.Module):
    """Two convolutions, conditioned on the embedding at the second normalisation, beside a shortcut.

    `resample` halves or doubles the resolution of both branches, before the first convolution.
    """

    def __init__(self, channels: int, out: int, embedding: int, options: Options, resample: nn.Module) -> None:
        super().__init__()
        self.scale_shift = options.scale_shift_norm
        self.norm1, self.conv1 = group_norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.resample = resample
        self.embed = nn.Linear(embedding, 2 * out if self.scale_shift else out)
        self.norm2, self.conv2 = group_norm(out), zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.dropout = Dropout(options.dropout)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], embedding: Tensor) -> Tensor:
        h, x = activate(self.norm1, x)
        h, condition = self.resample(h), self.embed(embedding)
        if self.scale_shift:
            h, _ = activate(self.norm2, h, scale_shift=condition, dropout=self.dropout, conv=self.conv1)
        else:
            h, _ = activate(self.norm2, h, condition, dropout=self.dropout, conv=self.conv1)
        return residual(self.resample(x), self.shortcut, h, self.conv2)


def heads_of(channels: int, options: Options) -> int:
    """Heads of an attention layer; raises BadConfig where its channels cannot be shared out so."""
    heads = options.heads or max(channels // options.head_channels, 1)
    if channels % heads or (not options.heads and channels > heads * options.head_channels):
        key = "heads" if options.heads else "head_channels"
        raise BadConfig(
            f"network.{key} is {getattr(options, key)}, which does not divide the {channels} channels of an "
            "attention layer; choose a divisor."
        )
    return heads


class Attention(nn.Module):
    """Self-attention over pixels with several heads."""

    def __init__(self, channels: int, options: Options) -> None:
        super().__init__()
        self.heads = heads_of(channels, options)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h, x = activate(self.norm, x, silu=False)
        # (B,3C,H,W) -> three of (B, heads, HW, C / heads)
        q, k, v = convolve(self.qkv, h).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)
        return residual(x, nn.Identity(), h.transpose(-1, -2).reshape(x.shape), self.out)


class Level(nn.Module):
    """A residual block, attention behind it where asked for, and in the end a block that doubles the resolution."""

    def __init__(
        self, channels: int, out: int, embedding: int, options: Options, attend: bool, double: bool = False
    ) -> None:
        super().__init__()
        self.block = ResBlock(channels, out, embedding, options, nn.Identity())
        self.attention = Attention(out, options) if attend else nn.Identity()
        self.doubling = ResBlock(out, out, embedding, options, Doubling()) if double else None

    def forward(self, x: Tensor | tuple[Tensor, Tensor], embedding: Tensor) -> Tensor:
        h = self.attention(self.block(x, embedding))
        return h if self.doubling is None else self.doubling(h, embedding)


class Contracting(nn.Module):
    """What a U-Net and a classifier begin with: the embedding, the way down and the middle."""

    def __init__(self, options: Options, resolution: int, image_channels: int, classes: int) -> None:
        """`classes` > 0 allows a label embedding. Raises BadConfig where resolution or attention heads do not fit."""
        super().__init__()
        check(options, resolution, classes)
        base, embedding = options.channels, 4 * options.channels
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes, embedding) if options.conditional else None
        self.first = nn.Conv2d(image_channels, base, 3, padding=1)

        widths = [base * m for m in options.channel_mult]
        attended = [resolution >> i in options.attention_resolutions for i in range(len(widths))]
        self.levels = list(zip(widths, attended, strict=True))
        skips, channels = [base], base
        self.down = nn.ModuleList()
        for i, (width, attend) in enumerate(self.levels):
            for _ in range(options.res_blocks):
                self.down.append(Level(channels, width, embedding, options, attend))
                channels = width
                skips.append(channels)
            if i < len(widths) - 1:
                self.down.append(ResBlock(channels, channels, embedding, options, nn.AvgPool2d(2)))
                skips.append(channels)
        self.middle = nn.ModuleList(Level(channels, channels, embedding, options, attend) for attend in (True, False))
        self.channels, self.skips = channels, skips

    def embed(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """(B, 4 channels), activated."""
        embedding = self.time(sinusoid(t, self.base, reached=False))  # [memory, high: released code]
        if self.label is not None:
            assert labels is not None, "a conditional network needs labels"
            embedding = embedding + self.label(labels)
        return F.silu(embedding)

    def contract(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What comes out of the middle, and what the way up is to be given, last first."""
        x = convolve(self.first, x)
        skips = [x]
        for layer in self.down:
            x = layer(x, embedding)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, embedding)
        return x, skips


class ADM(Contracting):
    """x (B,C,H,W), t (B,), labels (B,) or None -> (B, outputs, H, W)."""

    def __init__(self, options: Options, resolution: int, image_channels: int, outputs: int, classes: int) -> None:
        super().__init__(options, resolution, image_channels, classes)
        channels, skips = self.channels, [*self.skips]
        self.up = nn.ModuleList()
        for i, (width, attend) in reversed(list(enumerate(self.levels))):
            for j in range(options.res_blocks + 1):
                double = i > 0 and j == options.res_blocks
                self.up.append(Level(channels + skips.pop(), width, 4 * self.base, options, attend, double))
                channels = width
        self.norm, self.last = group_norm(channels), zeroed(nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(t, labels)
        x, skips = self.contract(x, embedding)
        for layer in self.up:
            x = layer((x, skips.pop()), embedding)
        return convolve(self.last, activate(self.norm, x)[0])
