"""How many parameters a network has, without building it."""

from pipeline_lib.config.models import Network


def parameters(config: Network, resolution: int, image_channels: int) -> int:
    """Of the U-Net for images (C,H,H), without its label embedding (4 x channels for each class), which data decide."""
    base, embedding = config.channels, 4 * config.channels
    total = _linear(base, embedding) + _linear(embedding, embedding) + _conv(image_channels, base)

    def level(channels: int, width: int, side: int) -> int:
        return _block(channels, width, embedding) + (_attention(width) if side in config.attention_resolutions else 0)

    levels = [(base * mult, resolution >> i) for i, mult in enumerate(config.channel_mult)]
    skips, channels = [base], base
    for i, (width, side) in enumerate(levels):
        for _ in range(config.res_blocks):
            total += level(channels, width, side)
            channels = width
            skips.append(channels)
        if i < len(levels) - 1:
            total += _conv(channels, channels)
            skips.append(channels)
    total += 2 * _block(channels, channels, embedding) + _attention(channels)
    for i, (width, side) in reversed(list(enumerate(levels))):
        for _ in range(config.res_blocks + 1):
            total += level(channels + skips.pop(), width, side)
            channels = width
        total += _conv(channels, channels) if i > 0 else 0
    return total + _norm(channels) + _conv(channels, image_channels)


def _norm(channels: int) -> int:
    return 2 * channels


def _linear(channels: int, out: int) -> int:
    return (channels + 1) * out


def _conv(channels: int, out: int) -> int:
    return (9 * channels + 1) * out


def _block(channels: int, out: int, embedding: int) -> int:
    """Two normalised convolutions, the embedding's projection, and a 1x1 shortcut where the width changes."""
    convolutions = _norm(channels) + _conv(channels, out) + _norm(out) + _conv(out, out)
    return convolutions + _linear(embedding, out) + (_linear(channels, out) if channels != out else 0)


def _attention(channels: int) -> int:
    return _norm(channels) + _linear(channels, 3 * channels) + _linear(channels, channels)
