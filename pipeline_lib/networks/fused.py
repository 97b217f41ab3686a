"""GPU kernels for what lies between two convolutions: normalise, scale, activate and drop out in one pass over memory.

Without them each of these operations reads and writes all activations. They are for channels-last tensors; what they
compute is that of `networks.layers`, whose plain operations are the reference of their tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 64  # channels that one program takes, unless a group has more
AREA = 8192  # elements that one program holds at a time


@triton.jit
def _scrambled(x):
    """A 32-bit integer hash with good avalanche (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _kept(word, place, salt, image, first, threshold):
    """Where dropout keeps a value: by the step's word, the layer's and call's salt, the image and its place in it."""
    key = _scrambled((image + tl.load(first)).to(tl.uint32) * 2 + 1) ^ tl.load(word).to(tl.uint32)
    key = _scrambled(_scrambled(key) + salt.to(tl.uint32))
    return _scrambled(place.to(tl.uint32) * (key | 1) + _scrambled(key)) >= threshold


@triton.jit
def _per_group(values, group):
    """Sums over the channels of a group, at each channel."""
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit(do_not_specialize=["salt", "threshold"])
def _forward(
    x_at, add_at, gamma_at, beta_at, y_at, mean_at, rstd_at, word, first, salt, threshold, keep,
    C, HW, GROUP, EPS, STRIDE,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    ADD: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    row = tl.arange(0, ROWS)
    base = image.to(tl.int64) * HW * C
    shift = tl.load(add_at + image * C + channel, mask=valid, other=0.0).to(tl.float32) if ADD else 0.0

    total = tl.zeros([WIDE], tl.float32)
    square = tl.zeros([WIDE], tl.float32)
    for start in range(0, HW, ROWS):
        inside = (start + row < HW)[:, None] & valid[None, :]
        x = tl.load(x_at + base + (start + row)[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        if ADD:
            x = tl.where(inside, x + shift[None, :], 0.0)
        total += tl.sum(x, axis=0)
        square += tl.sum(x * x, axis=0)
    group = lane // GROUP
    count = HW * GROUP
    mean = _per_group(total, group) / count
    rstd = tl.rsqrt(tl.maximum(_per_group(square, group) / count - mean * mean, 0.0) + EPS)
    tl.store(mean_at + image * C + channel, mean, mask=valid)
    tl.store(rstd_at + image * C + channel, rstd, mask=valid)

    gamma = tl.load(gamma_at + image * STRIDE + channel, mask=valid, other=0.0) * rstd
    beta = tl.load(beta_at + image * STRIDE + channel, mask=valid, other=0.0) - mean * gamma
    if ADD:
        beta += shift * gamma
    for start in range(0, HW, ROWS):
        inside = (start + row < HW)[:, None] & valid[None, :]
        place = (start + row)[:, None] * C + channel[None, :]
        x = tl.load(x_at + base + place, mask=inside, other=0.0).to(tl.float32)
        y = x * gamma[None, :] + beta[None, :]
        if SILU:
            y = y * tl.sigmoid(y)
        if DROP:
            y = tl.where(_kept(word, place, salt, image, first, threshold), y / keep, 0.0)
        tl.store(y_at + base + place, y.to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _through(dy, z, SILU: tl.constexpr):
    """The gradient before the activation."""
    if SILU:
        s = tl.sigmoid(z)
        return dy * s * (1 + z * (1 - s))
    return dy


@triton.jit(do_not_specialize=["salt", "threshold"])
def _backward(
    dy_at, x_at, add_at, gamma_at, beta_at, mean_at, rstd_at, besides_at, dx_at, dadd_at, dgamma_at, dbeta_at,
    word, first, salt, threshold, keep, C, HW, GROUP, STRIDE,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    ADD: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr, BESIDES: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    row = tl.arange(0, ROWS)
    base = image.to(tl.int64) * HW * C
    at = image * C + channel
    mean = tl.load(mean_at + at, mask=valid, other=0.0)
    rstd = tl.load(rstd_at + at, mask=valid, other=0.0)
    gamma = tl.load(gamma_at + image * STRIDE + channel, mask=valid, other=0.0)
    beta = tl.load(beta_at + image * STRIDE + channel, mask=valid, other=0.0)
    offset = -mean * rstd  # x is normalised as x rstd + offset
    if ADD:
        offset += tl.load(add_at + at, mask=valid, other=0.0).to(tl.float32) * rstd

    sum_dz = tl.zeros([WIDE], tl.float32)
    sum_dz_x = tl.zeros([WIDE], tl.float32)
    sum_x = tl.zeros([WIDE], tl.float32)
    for start in range(0, HW, ROWS):
        inside = (start + row < HW)[:, None] & valid[None, :]
        place = (start + row)[:, None] * C + channel[None, :]
        x = tl.load(x_at + base + place, mask=inside, other=0.0).to(tl.float32) * rstd[None, :] + offset[None, :]
        dy = tl.load(dy_at + base + place, mask=inside, other=0.0).to(tl.float32)
        if DROP:
            dy = tl.where(_kept(word, place, salt, image, first, threshold), dy / keep, 0.0)
        dz = _through(dy, x * gamma[None, :] + beta[None, :], SILU)
        sum_dz += tl.sum(dz, axis=0)
        sum_dz_x += tl.sum(dz * x, axis=0)
        if ADD:
            sum_x += tl.sum(tl.where(inside, x, 0.0), axis=0)
    group = lane // GROUP
    count = HW * GROUP
    constant = _per_group(gamma * sum_dz, group) / count
    slope = _per_group(gamma * sum_dz_x, group) / count
    tl.store(dgamma_at + at, sum_dz_x, mask=valid)
    tl.store(dbeta_at + at, sum_dz, mask=valid)
    if ADD:
        tl.store(dadd_at + at, rstd * (gamma * sum_dz - HW * constant - slope * sum_x), mask=valid)

    for start in range(0, HW, ROWS):
        inside = (start + row < HW)[:, None] & valid[None, :]
        place = (start + row)[:, None] * C + channel[None, :]
        x = tl.load(x_at + base + place, mask=inside, other=0.0).to(tl.float32) * rstd[None, :] + offset[None, :]
        dy = tl.load(dy_at + base + place, mask=inside, other=0.0).to(tl.float32)
        if DROP:
            dy = tl.where(_kept(word, place, salt, image, first, threshold), dy / keep, 0.0)
        dz = _through(dy, x * gamma[None, :] + beta[None, :], SILU)
        dx = rstd[None, :] * (dz * gamma[None, :] - constant[None, :] - x * slope[None, :])
        if BESIDES:
            dx += tl.load(besides_at + base + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_at + base + place, dx.to(dx_at.dtype.element_ty), mask=inside)


def _tiles(channels: int, groups: int, area: int) -> tuple[int, int, int, int]:
    """Channels of a program, the power of two that holds them, rows at a time, and warps."""
    size = channels // groups
    tile = size
    while tile * 2 <= WIDEST and channels % (tile * 2) == 0:
        tile *= 2
    wide = triton.next_power_of_2(tile)
    rows = min(triton.next_power_of_2(area), max(AREA // wide, 1))
    return tile, wide, rows, max(1, min(8, rows * wide // 1024))


class Activate(torch.autograd.Function):
    """See `layers.activate`; the second output is x itself, so that gradients that reach it another way are added in
    the same pass."""

    @staticmethod
    def forward(ctx, x, add, gamma, beta, groups, eps, silu, drop):  # noqa: ANN001, ANN205, D102
        n, c, h, w = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x)
        mean, rstd = (torch.empty(n, c, device=x.device) for _ in range(2))
        tile, wide, rows, warps = _tiles(c, groups, h * w)
        word, first, salt, p = drop if drop else (None, None, 0, 0.0)
        threshold, keep = int(p * 2**32), 1 - p
        stride = gamma.stride(0)
        _forward[(n, c // tile)](
            x, add, gamma, beta, y, mean, rstd, word, first, salt, threshold, keep, c, h * w, c // groups, eps, stride,
            tile, wide, rows, add is not None, silu, bool(drop), num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(x, add, gamma, beta, mean, rstd, word, first)
        ctx.settings = groups, silu, salt, threshold, keep, stride, bool(drop)
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    def backward(ctx, dy, besides):  # noqa: ANN001, ANN205, D102
        x, add, gamma, beta, mean, rstd, word, first = ctx.saved_tensors
        groups, silu, salt, threshold, keep, stride, drop = ctx.settings
        if dy is None:
            return besides, *(None,) * 7
        n, c, h, w = x.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        if besides is not None:
            besides = besides.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        dadd = None if add is None else torch.empty_like(mean)
        dgamma, dbeta = torch.empty_like(mean), torch.empty_like(mean)
        tile, wide, rows, warps = _tiles(c, groups, h * w)
        _backward[(n, c // tile)](
            dy, x, add, gamma, beta, mean, rstd, besides, dx, dadd, dgamma, dbeta,
            word, first, salt, threshold, keep, c, h * w, c // groups, stride,
            tile, wide, rows, add is not None, silu, drop, besides is not None, num_warps=warps,
        )  # fmt: skip
        return dx, dadd, dgamma, dbeta, None, None, None, None
