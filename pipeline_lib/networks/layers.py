"""What the U-Nets have between their convolutions, in one pass over memory where a GPU can (`networks.fused`)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.device import has_kernels

_SPREAD = 0x9E3779B9  # an odd number that spreads small ones over 32 bits


def fused(x: Tensor) -> bool:
    """Whether operations on x run as our own kernels: on a GPU with Triton, outside `device.plain`."""
    return x.is_cuda and x.dtype != torch.float64 and has_kernels()


class Mask(NamedTuple):
    """What decides a dropout mask in our kernels: word (1,) int64 of the step, number (1,) int64 of the first image in
    the global batch, salt of layer and call, and the rate."""

    word: Tensor
    first: Tensor
    salt: int
    rate: float


class Dropout(nn.Dropout):
    """Dropout; on a GPU, after `Masks`, with masks that are a function of step, layer, call, image and place."""

    masks: "Masks | None" = None
    number = calls = 0

    def mask(self) -> Mask | None:
        """The mask of the next call; None where nothing is dropped."""
        if not (self.training and self.p):
            return None
        assert self.masks is not None, "dropout on a GPU needs masks"
        self.calls += 1
        salt = (self.number * 4096 + self.calls) * _SPREAD & 0x7FFFFFFF
        return Mask(self.masks.word, self.masks.first, salt, self.p)


class Masks:
    """The keys of all dropout masks of a network."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.word, self.first = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.layers = [m for m in network.modules() if isinstance(m, Dropout)]
        for number, layer in enumerate(self.layers):
            layer.masks, layer.number = self, number

    def begin(self, word: Tensor, first: Tensor) -> None:
        """A new part of a batch: the random word (1,) of the step, and the number (1,) of the part's first image."""
        self.word.copy_(word)
        self.first.copy_(first)
        for layer in self.layers:
            layer.calls = 0


def activate(
    norm: nn.GroupNorm,
    x: Tensor | tuple[Tensor, Tensor],
    add: Tensor | None = None,
    scale_shift: Tensor | None = None,
    silu: bool = True,
    dropout: Dropout | None = None,
    conv: nn.Conv2d | None = None,
) -> tuple[Tensor, Tensor]:
    """dropout(silu(norm(h) (1 + scale) + shift)) of h = conv(x) + add, and h.

    add is (B,C), scale_shift (B,2C) the scales and then the shifts.
    x may be two tensors, whose channels are joined; then there is no `conv` or `add`. Who uses x besides takes the
    second output, which is x where neither `conv` nor `add` is given: gradients that reach it are then added in the
    same pass.
    """
    a, b = x if isinstance(x, tuple) else (x, None)
    if fused(a):
        from pipeline_lib.networks.fused import Activate

        a, bias = (a, None) if conv is None else (_unbiased(conv, a), _bias(conv))
        mask = dropout.mask() if dropout is not None else None
        affine = norm.weight, norm.bias, scale_shift
        return Activate.apply(a, b, bias, add, *affine, norm.num_groups, norm.eps, silu, mask)
    x = a if b is None else torch.cat((a, b), 1)
    x = x if conv is None else conv(x)
    h = norm(x if add is None else x + add[:, :, None, None])
    if scale_shift is not None:
        scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
        h = h * (1 + scale) + shift
    h = F.silu(h) if silu else h
    return h if dropout is None else dropout(h), x


def residual(x: Tensor, shortcut: nn.Module, h: Tensor, conv: nn.Conv2d, gain: float = 1.0) -> Tensor:
    """(shortcut(x) + conv(h)) gain, (B,C,H,W); `shortcut` is a convolution or the identity."""
    if fused(x):
        from pipeline_lib.networks.fused import Join

        bias = _bias(conv)
        if isinstance(shortcut, nn.Conv2d):
            x, bias = _unbiased(shortcut, x), bias + _bias(shortcut)
        return Join.apply(x, _unbiased(conv, h), bias, gain)
    y = shortcut(x) + conv(h)
    return y if gain == 1 else y * gain


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(x)."""
    if fused(x):
        from pipeline_lib.networks.fused import Join

        return Join.apply(None, _unbiased(conv, x), _bias(conv), 1.0)
    return conv(x)


def doubled(x: Tensor) -> Tensor:
    """x (B,C,H,W) at twice the resolution, by nearest neighbours."""
    if fused(x):
        from pipeline_lib.networks.fused import Double

        return Double.apply(x)
    with torch.autocast(x.device.type, enabled=False):  # which would make it float32
        return F.interpolate(x, scale_factor=2, mode="nearest")


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "convolutions of these networks have biases"
    return conv.bias


def _unbiased(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
