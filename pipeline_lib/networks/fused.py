"""GPU kernels for what lies between two convolutions: normalise, scale, activate and drop out in one pass over memory.

Without them each of these operations reads and writes all activations. They are for channels-last tensors; what they
compute is that of `networks.layers`, whose plain operations are the reference of their tests.
"""

# mypy: ignore-errors

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

AREA = 16_384  # elements that one program holds at a time: enough to keep channels of an image in registers up to 32x32
NARROWEST = 16  # channels that one program takes, so that whole sectors of memory are read
WIDEST = 64


@triton.jit
def _scrambled(x):
    """A 32-bit integer hash with good avalanche (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _dropped(y, word, place, salt, image, first, threshold, keep):
    """Dropout: by the step's word, the layer's and call's salt, the image and the place in it."""
    key = _scrambled((image + tl.load(first)).to(tl.uint32) * 2 + 1) ^ tl.load(word).to(tl.uint32)
    key = _scrambled(_scrambled(key) + salt.to(tl.uint32))
    kept = _scrambled(place.to(tl.uint32) * (key | 1) + _scrambled(key)) >= threshold
    return tl.where(kept, y / keep, 0.0)


@triton.jit
def _per_group(values, group):
    """Sums over the channels of a group, at each channel."""
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit
def _activated(x, gamma, beta, SILU: tl.constexpr):
    y = x * gamma[None, :] + beta[None, :]
    return y * tl.sigmoid(y) if SILU else y


@triton.jit
def _through(dy, x, gamma, beta, SILU: tl.constexpr):
    """The gradient before the activation."""
    if SILU:
        z = x * gamma[None, :] + beta[None, :]
        s = tl.sigmoid(z)
        dy = dy * s * (1 + z * (1 - s))
    return dy


@triton.jit(do_not_specialize=["salt", "threshold"])
def _forward(
    x_at, add_at, gamma_at, beta_at, y_at, mean_at, rstd_at, word, first, salt, threshold, keep,
    C, HW, X_ROW, GROUP, EPS, STRIDE,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr,
    ADD: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    tile, image = tl.program_id(1), tl.program_id(0)
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    row = tl.arange(0, ROWS)
    x_base, y_base = image.to(tl.int64) * HW * X_ROW, image.to(tl.int64) * HW * C
    add = tl.load(add_at + image * C + channel, mask=valid, other=0.0).to(tl.float32) if ADD else 0.0

    group = lane // GROUP
    count = HW * GROUP
    x_place = x_at + x_base + channel[None, :]
    if ONCE:
        inside = (row < HW)[:, None] & valid[None, :]
        x = tl.load(x_place + row[:, None] * X_ROW, mask=inside, other=0.0).to(tl.float32)
        if ADD:
            x = tl.where(inside, x + add[None, :], 0.0)
        mean = _per_group(tl.sum(x, axis=0), group) / count
        off = tl.where(inside, x - mean[None, :], 0.0)
        variance = _per_group(tl.sum(off * off, axis=0), group) / count
    else:
        total = tl.zeros([WIDE], tl.float32)
        for start in range(0, HW, ROWS):
            inside = (start + row < HW)[:, None] & valid[None, :]
            x = tl.load(x_place + (start + row)[:, None] * X_ROW, mask=inside, other=0.0).to(tl.float32)
            if ADD:
                x = tl.where(inside, x + add[None, :], 0.0)
            total += tl.sum(x, axis=0)
        mean = _per_group(total, group) / count
        square = tl.zeros([WIDE], tl.float32)  # a second look, since the mean square less the squared mean loses digits
        for start in range(0, HW, ROWS):
            inside = (start + row < HW)[:, None] & valid[None, :]
            x = tl.load(x_place + (start + row)[:, None] * X_ROW, mask=inside, other=0.0).to(tl.float32)
            if ADD:
                x += add[None, :]
            off = tl.where(inside, x - mean[None, :], 0.0)
            square += tl.sum(off * off, axis=0)
        variance = _per_group(square, group) / count
    rstd = tl.rsqrt(variance + EPS)
    tl.store(mean_at + image * C + channel, mean, mask=valid)
    tl.store(rstd_at + image * C + channel, rstd, mask=valid)

    gamma = tl.load(gamma_at + image * STRIDE + channel, mask=valid, other=0.0)
    beta = tl.load(beta_at + image * STRIDE + channel, mask=valid, other=0.0)
    if ONCE:
        y = _activated((x - mean[None, :]) * rstd[None, :], gamma, beta, SILU)
        place = row[:, None] * C + channel[None, :]
        if DROP:
            y = _dropped(y, word, place, salt, image, first, threshold, keep)
        tl.store(y_at + y_base + place, y.to(y_at.dtype.element_ty), mask=inside)
    else:
        for start in range(0, HW, ROWS):
            inside = (start + row < HW)[:, None] & valid[None, :]
            x = tl.load(x_place + (start + row)[:, None] * X_ROW, mask=inside, other=0.0).to(tl.float32)
            if ADD:
                x += add[None, :]
            y = _activated((x - mean[None, :]) * rstd[None, :], gamma, beta, SILU)
            place = (start + row)[:, None] * C + channel[None, :]
            if DROP:
                y = _dropped(y, word, place, salt, image, first, threshold, keep)
            tl.store(y_at + y_base + place, y.to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _before(
    dy_at, x_at, pixel, channel, inside, place, mean, rstd, gamma, beta, word, first, image, salt, threshold, keep,
    X_ROW, DY_ROW, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """Normalised x, and the gradient before activation and dropout."""
    x = tl.load(x_at + pixel * X_ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    x = tl.where(inside, (x - mean[None, :]) * rstd[None, :], 0.0)
    dz = tl.load(dy_at + pixel * DY_ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if DROP:
        dz = _dropped(dz, word, place, salt, image, first, threshold, keep)
    return x, _through(dz, x, gamma, beta, SILU)


@triton.jit(do_not_specialize=["salt", "threshold"])
def _backward(
    dy_at, x_at, add_at, gamma_at, beta_at, mean_at, rstd_at, besides_at, dx_at, dadd_at, dgamma_at, dbeta_at,
    word, first, salt, threshold, keep, C, HW, X_ROW, DY_ROW, BESIDES_ROW, GROUP, STRIDE,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr,
    ADD: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr, BESIDES: tl.constexpr,
):  # fmt: skip
    tile, image = tl.program_id(1), tl.program_id(0)
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    row = tl.arange(0, ROWS)
    pixels = image.to(tl.int64) * HW
    at = image * C + channel
    mean = tl.load(mean_at + at, mask=valid, other=0.0)
    rstd = tl.load(rstd_at + at, mask=valid, other=0.0)
    gamma = tl.load(gamma_at + image * STRIDE + channel, mask=valid, other=0.0)
    beta = tl.load(beta_at + image * STRIDE + channel, mask=valid, other=0.0)
    if ADD:
        mean -= tl.load(add_at + at, mask=valid, other=0.0).to(tl.float32)

    inside = (row < HW)[:, None] & valid[None, :]
    pixel, place = (pixels + row)[:, None], row[:, None] * C + channel[None, :]
    if ONCE:
        x, dz = _before(
            dy_at, x_at, pixel, channel, inside, place, mean, rstd, gamma, beta, word, first, image, salt, threshold,
            keep, X_ROW, DY_ROW, SILU, DROP,
        )  # fmt: skip
        sum_dz, sum_dz_x, sum_x = tl.sum(dz, axis=0), tl.sum(dz * x, axis=0), tl.sum(x, axis=0)
    else:
        sum_dz = tl.zeros([WIDE], tl.float32)
        sum_dz_x = tl.zeros([WIDE], tl.float32)
        sum_x = tl.zeros([WIDE], tl.float32)
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            x, dz = _before(
                dy_at, x_at, pixel + start, channel, within, place + start * C, mean, rstd, gamma, beta, word, first,
                image, salt, threshold, keep, X_ROW, DY_ROW, SILU, DROP,
            )  # fmt: skip
            sum_dz += tl.sum(dz, axis=0)
            sum_dz_x += tl.sum(dz * x, axis=0)
            sum_x += tl.sum(x, axis=0)
    group = lane // GROUP
    count = HW * GROUP
    constant = _per_group(gamma * sum_dz, group) / count
    slope = _per_group(gamma * sum_dz_x, group) / count
    tl.store(dgamma_at + at, sum_dz_x, mask=valid)
    tl.store(dbeta_at + at, sum_dz, mask=valid)
    if ADD:
        tl.store(dadd_at + at, rstd * (gamma * sum_dz - HW * constant - slope * sum_x), mask=valid)

    if ONCE:
        dx = rstd[None, :] * (dz * gamma[None, :] - constant[None, :] - x * slope[None, :])
        if BESIDES:
            dx += tl.load(besides_at + pixel * BESIDES_ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_at + pixel * C + channel[None, :], dx.to(dx_at.dtype.element_ty), mask=inside)
    else:
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            x, dz = _before(
                dy_at, x_at, pixel + start, channel, within, place + start * C, mean, rstd, gamma, beta, word, first,
                image, salt, threshold, keep, X_ROW, DY_ROW, SILU, DROP,
            )  # fmt: skip
            dx = rstd[None, :] * (dz * gamma[None, :] - constant[None, :] - x * slope[None, :])
            if BESIDES:
                other = tl.load(besides_at + (pixel + start) * BESIDES_ROW + channel[None, :], mask=within, other=0.0)
                dx += other.to(tl.float32)
            tl.store(dx_at + (pixel + start) * C + channel[None, :], dx.to(dx_at.dtype.element_ty), mask=within)


def _tiles(channels: int, groups: int, area: int) -> tuple[int, int, int, bool, int]:
    """Channels of a program, the power of two that holds them, rows at a time, whether these are all, and warps."""
    tile = channels // groups
    while channels % (tile * 2) == 0 and (tile < NARROWEST or (tile < WIDEST and area * tile * 2 <= AREA)):
        tile *= 2
    wide, all_rows = triton.next_power_of_2(tile), triton.next_power_of_2(area)
    rows = min(all_rows, max(AREA // wide, 1))
    return tile, wide, rows, rows == all_rows, max(1, min(8, rows * wide // 1024))


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """A tensor whose pixels are contiguous channels at one distance, as in slices of channels, and the distance."""
    c, h, w = x.shape[1:]
    row = x.stride(3)
    if x.stride() != (h * w * row, 1, w * row, row) or row < c:
        x = x.contiguous(memory_format=torch.channels_last)
        row = c
    return x, row


def _new(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


class Activate(torch.autograd.Function):
    """See `layers.activate`; the second output is x itself, so that gradients that reach it another way are added in
    the same pass."""

    @staticmethod
    def forward(ctx, x, add, gamma, beta, groups, eps, silu, drop):
        n, c, h, w = x.shape
        given, (x, row) = x, _rows(x)
        y = _new(x)
        mean, rstd = torch.empty(2, n, c, device=x.device)
        tile, wide, rows, once, warps = _tiles(c, groups, h * w)
        word, first, salt, p = drop if drop else (None, None, 0, 0.0)
        threshold, keep = int(p * 2**32), 1 - p
        stride = 0 if gamma.ndim == 1 else gamma.stride(0)  # 0: one for all images
        _forward[(n, c // tile)](
            x, add, gamma, beta, y, mean, rstd, word, first, salt, threshold, keep,
            c, h * w, row, c // groups, eps, stride,
            tile, wide, rows, once, add is not None, silu, bool(drop), num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(x, add, gamma, beta, mean, rstd, word, first)
        ctx.settings = groups, silu, salt, threshold, keep, stride, bool(drop)
        ctx.set_materialize_grads(False)
        return y, given

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, besides):
        x, add, gamma, beta, mean, rstd, word, first = ctx.saved_tensors
        groups, silu, salt, threshold, keep, stride, drop = ctx.settings
        if dy is None:
            return besides, *(None,) * 7
        n, c, h, w = x.shape
        x, x_row = _rows(x)
        dy, dy_row = _rows(dy)
        besides, besides_row = (None, 0) if besides is None else _rows(besides)
        dx = _new(x)
        dadd = None if add is None else torch.empty_like(mean)
        slopes = torch.empty(2, n, c, device=x.device)
        dgamma, dbeta = slopes
        tile, wide, rows, once, warps = _tiles(c, groups, h * w)
        _backward[(n, c // tile)](
            dy, x, add, gamma, beta, mean, rstd, besides, dx, dadd, dgamma, dbeta,
            word, first, salt, threshold, keep, c, h * w, x_row, dy_row, besides_row, c // groups, stride,
            tile, wide, rows, once, add is not None, silu, drop, besides is not None, num_warps=warps,
        )  # fmt: skip
        if gamma.ndim == 1:
            dgamma, dbeta = slopes.sum(1)
        return dx, dadd, dgamma, dbeta, None, None, None, None


@triton.jit
def _join(a_at, b_at, bias_at, y_at, gain, PIXELS, C, A_ROW, WIDE: tl.constexpr, ROWS: tl.constexpr, A: tl.constexpr):
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    pixel = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (pixel < PIXELS)[:, None] & (channel < C)[None, :]
    place = pixel[:, None] * C + channel[None, :]
    y = tl.load(b_at + place, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias_at + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    if A:
        y += tl.load(a_at + pixel[:, None] * A_ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(y_at + place, (y * gain).to(y_at.dtype.element_ty), mask=inside)


@triton.jit
def _columns(x_at, out_at, PIXELS, C, ROW, SPAN, WIDE: tl.constexpr, ROWS: tl.constexpr):
    channel = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    begin = tl.program_id(1).to(tl.int64) * SPAN
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(0, SPAN, ROWS):
        pixel = begin + start + tl.arange(0, ROWS).to(tl.int64)
        inside = (pixel < PIXELS)[:, None] & (channel < C)[None, :]
        total += tl.load(x_at + pixel[:, None] * ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out_at + tl.program_id(1) * C + channel, tl.sum(total, axis=0), mask=channel < C)


def columns(x: Tensor) -> Tensor:
    """Sums (C,), float32, of x (B,C,H,W) over all but channels, in an order that does not change."""
    x, row = _rows(x)
    n, c, h, w = x.shape
    pixels = n * h * w
    span = max(64, triton.cdiv(pixels, 64 * 64) * 64)
    parts = triton.cdiv(pixels, span)
    out = torch.empty(parts, c, device=x.device)
    _columns[(triton.cdiv(c, 64), parts)](x, out, pixels, c, row, span, 64, 64)
    return out.sum(0)


class Join(torch.autograd.Function):
    """(a + b + bias) gain of b (B,C,H,W), bias (C,) and a like b or None."""

    @staticmethod
    def forward(ctx, a, b, bias, gain):
        b, row = _rows(b)
        n, c, h, w = b.shape
        if row != c:
            b = b.contiguous(memory_format=torch.channels_last)
        a_row = 0
        if a is not None:
            a, a_row = _rows(a)
        y = _new(b)
        wide = min(triton.next_power_of_2(c), 128)
        rows, pixels = 4096 // wide, n * h * w
        grid = triton.cdiv(pixels, rows), triton.cdiv(c, wide)
        _join[grid](a, b, bias, y, gain, pixels, c, a_row, wide, rows, a is not None)
        ctx.gain, ctx.joined = gain, a is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dy = dy.contiguous(memory_format=torch.channels_last)  # once: both convolutions before would copy a slice
        if ctx.gain != 1:
            dy = dy * ctx.gain
        return dy if ctx.joined else None, dy, columns(dy) if ctx.needs_input_grad[2] else None, None
