"""The augmentation of EDM (Karras et al., 2022, App. F.2) that its recipe for CIFAR-10 switches on.

Each image is flipped, scaled, turned, stretched and moved, each at random with a probability; the network is told how,
so that it does not draw such images when it is told nothing. The numbers are the released code's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline_lib.diffusion.denoiser import Denoising, Prediction
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.objectives import Batch

SCALE, STRETCH = 0.2, 0.2  # standard deviations of log2
SHIFT = 0.125  # standard deviation, in image sides
TURNED_STRETCH = 0.5  # share of stretches that are along a turned axis
# low-pass filter of the symlet of order 6, whose even shifts are orthonormal: doubling and halving the resolution with
# it changes nothing
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
BEFORE = 5  # taps of the filter before its middle
EDGE = 3  # pixels around the image that the filter reads


@dataclass(frozen=True)
class Change:
    """How each of B images is changed, in the units of its label; zeros change nothing."""

    flip_x: Tensor
    flip_y: Tensor
    scale: Tensor  # in SCALE
    angle: Tensor
    stretch: Tensor  # in STRETCH
    axis: Tensor  # of the stretch
    shift_x: Tensor  # in SHIFT
    shift_y: Tensor

    @property
    def labels(self) -> Tensor:
        """What the network is told (B, 9)."""
        columns = [self.flip_x, self.flip_y, self.scale, self.angle.cos() - 1, self.angle.sin()]
        columns += [self.stretch * self.axis.cos(), self.stretch * self.axis.sin(), self.shift_x, self.shift_y]
        return torch.stack(columns, dim=1)

    def source(self, side: int) -> tuple[Tensor, Tensor]:
        """(B, 2, 2) and (B, 2): the pixel at p, from the middle, is taken from matrix p + offset."""
        along, across = torch.exp2(-STRETCH * self.stretch), torch.exp2(STRETCH * self.stretch)
        stretch = _turn(-self.axis) @ torch.diag_embed(torch.stack((along, across), dim=1)) @ _turn(self.axis)
        matrix = torch.exp2(-SCALE * self.scale)[:, None, None] * _turn(self.angle) @ stretch
        shift = SHIFT * side * torch.stack((self.shift_x, self.shift_y), dim=1)
        return matrix, -(matrix @ shift[:, :, None])[:, :, 0]


class Told:
    """A denoiser whose network is told how the images were augmented: (B, 9), for B images or several times these."""

    def __init__(self, denoiser: Denoising, augment: Tensor) -> None:
        self.predict: Callable[..., Prediction] = denoiser
        self.augment, self.path = augment, denoiser.path

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        return self.predict(x, t, labels, self.augment.repeat(len(x) // len(self.augment), 1))


def draw(batch: Batch, probability: float) -> Change:
    """Changes of a batch, keyed by step and place in it. x-flips are always drawn, the others with `probability`."""
    u = batch.noise.uniform(Stream.AUGMENT, batch.index, batch.step, (10,)).unbind(1)
    scale, stretch, *shift = batch.noise.normal(Stream.AUGMENT, batch.index, batch.step, (4,), sub=1).unbind(1)

    def some(value: Tensor, chance: Tensor, share: float = probability) -> Tensor:
        return torch.where(chance < share, value, torch.zeros_like(value))

    return Change(
        flip_x=(u[0] < 0.5).float(),
        flip_y=some((u[1] < 0.5).float(), u[2]),
        scale=some(scale, u[3]),
        angle=some(pi * (2 * u[4] - 1), u[5]),
        stretch=some(stretch, u[6]),
        axis=some(pi * (2 * u[7] - 1), u[8], TURNED_STRETCH),
        shift_x=some(shift[0], u[9]),
        shift_y=some(shift[1], u[9]),
    )


def apply(images: Tensor, change: Change) -> Tensor:
    """Images (B,C,H,W) flipped, then moved, stretched, turned and scaled."""
    images = torch.where(_flag(change.flip_x), images.flip(3), images)
    images = torch.where(_flag(change.flip_y), images.flip(2), images)
    matrix, offset = change.source(images.shape[-1])
    moves = (change.labels[:, 2:] != 0).any(1)
    if images.is_cuda:  # where counting those that are moved would cost more than moving all
        return torch.where(_flag(moves), warp(images, matrix, offset), images)
    moved = moves.nonzero().squeeze(1)
    if not len(moved):
        return images
    return images.index_copy(0, moved, warp(images[moved], matrix[moved], offset[moved]))


def warp(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """The pixel at p, from the middle, is read at matrix p + offset: bilinearly at twice the resolution."""
    channels, side = images.shape[1:3]
    pad = side - 1  # the most that mirroring gives; beyond it is grey
    kernel = _kernel(images.device, images.dtype).expand(channels, 1, -1, -1)
    padded = F.pad(images, [pad] * 4, mode="reflect")
    fine = F.conv_transpose2d(padded, kernel, stride=2, padding=BEFORE, groups=channels)  # pixel i is at 2 i
    line = torch.arange(2 * (side + 2 * EDGE), device=images.device) / 2 - EDGE - (side - 1) / 2
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # x, y
    read = torch.einsum("nij,hwj->nhwi", matrix, places) + offset[:, None, None]
    at = 2 * (read + (side - 1) / 2 + pad)
    fine = F.grid_sample(fine, 2 * at / (fine.shape[-1] - 1) - 1, align_corners=True)
    first = 2 * EDGE - BEFORE
    return F.conv2d(fine[:, :, first:, first:], kernel, stride=2, groups=channels)


@lru_cache
def _kernel(device: torch.device, dtype: torch.dtype) -> Tensor:
    line = torch.tensor(SYM6, device=device, dtype=dtype)
    return torch.outer(line, line)


def _flag(flip: Tensor) -> Tensor:
    return (flip == 1)[:, None, None, None]


def _turn(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, -sin, sin, cos), dim=1).reshape(-1, 2, 2)
