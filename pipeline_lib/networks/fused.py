"""GPU kernels for what lies between two convolutions: normalise, scale, activate and drop out in one pass over memory.

Without them each of these operations reads and writes all activations. They are for channels-last tensors; what they
compute is that of `networks.layers`, whose plain operations are the reference of their tests.
"""

# mypy: ignore-errors

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.language.extra import libdevice

NARROWEST = 16  # channels that one program takes, so that whole sectors of memory are read
STAGES = tl.constexpr(3)  # of the loads of a loop, which begin before those of the step before have been used


@triton.jit
def _mixed(x):
    """A 32-bit integer hash whose high bits depend on all bits of x (Wellons' lowbias32, but for its last step)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    return (x ^ (x >> 15)) * 0x846CA68B


@triton.jit
def _scrambled(x):
    """As `_mixed`, in all bits."""
    x = _mixed(x)
    return x ^ (x >> 16)


@triton.jit
def _dropped(y, word, place, salt, image, first, threshold, up):
    """Dropout: by the step's word, the layer's and call's salt, the image and the place in it."""
    key = _scrambled((image + tl.load(first)).to(tl.uint32) * 2 + 1) ^ tl.load(word).to(tl.uint32)
    key = _scrambled(_scrambled(key) + salt.to(tl.uint32))
    kept = _mixed(place.to(tl.uint32) * (key | 1) + _scrambled(key)) >= threshold
    return tl.where(kept, y * up, 0.0)


@triton.jit
def _per_group(values, group):
    """Sums over the channels of a group, at each channel."""
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit
def _sigmoid(x):
    """In a third of the instructions of `tl.sigmoid`, which cares for numbers that float32 hardly holds."""
    return libdevice.fast_dividef(1.0, 1.0 + libdevice.fast_expf(-x))


@triton.jit
def _load(at, inside, FULL: tl.constexpr):
    return tl.load(at) if FULL else tl.load(at, mask=inside, other=0.0)


@triton.jit
def _store(at, values, inside, FULL: tl.constexpr):
    if FULL:
        tl.store(at, values.to(at.dtype.element_ty))
    else:
        tl.store(at, values.to(at.dtype.element_ty), mask=inside)


@triton.jit
def _less(x, mean, inside, FULL: tl.constexpr):
    """x less its mean, and zero where there is no x."""
    off = x - mean[None, :]
    return off if FULL else tl.where(inside, off, 0.0)


@triton.jit
def _conditioned(gamma_at, beta_at, condition_at, image, channel, valid, C, SCALED: tl.constexpr):
    """Scale and shift of an image's channels, and what conditioning makes them from."""
    weight = tl.load(gamma_at + channel, mask=valid, other=0.0)
    offset = tl.load(beta_at + channel, mask=valid, other=0.0)
    gamma, beta, scale = weight, offset, 1.0
    if SCALED:
        condition_at += image * 2 * C + channel
        scale += tl.load(condition_at, mask=valid, other=0.0).to(tl.float32)
        gamma = weight * scale
        beta = offset * scale + tl.load(condition_at + C, mask=valid, other=0.0).to(tl.float32)
    return gamma, beta, scale, weight, offset


@triton.jit
def _read(a_at, b_at, pixel, channel, inside, A_ROW, B_ROW, SPLIT, PAIR: tl.constexpr, FULL: tl.constexpr):
    """The input; channels from SPLIT on are those of a second tensor."""
    if PAIR:
        x = tl.load(a_at + pixel * A_ROW + channel, mask=inside & (channel < SPLIT), other=0.0)
        x += tl.load(b_at + pixel * B_ROW + channel - SPLIT, mask=inside & (channel >= SPLIT), other=0.0)
    else:
        x = _load(a_at + pixel * A_ROW + channel, inside, FULL)
    return x


@triton.jit
def _activated(
    off, scaled, beta, word, place, salt, image, first, threshold, up, SILU: tl.constexpr, DROP: tl.constexpr
):  # fmt: skip
    y = off * scaled[None, :] + beta[None, :]
    if SILU:
        y = y * _sigmoid(y)
    return _dropped(y, word, place, salt, image, first, threshold, up) if DROP else y


@triton.jit(do_not_specialize=["salt", "threshold"])
def _forward(
    a_at, b_at, bias_at, add_at, gamma_at, beta_at, condition_at, y_at, x_at, mean_at, rstd_at,
    word, first, salt, threshold, up, C, HW, SPLIT, A_ROW, B_ROW, GROUP, EPS, TILES,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr, FULL: tl.constexpr,
    PAIR: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, SCALED: tl.constexpr, SILU: tl.constexpr,
    DROP: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES  # neighbours share lines of memory
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    across, at = channel[None, :], image * C + channel
    row = tl.arange(0, ROWS)
    inside, pixel = (row < HW)[:, None] & valid[None, :], row[:, None]
    a_at += image.to(tl.int64) * HW * A_ROW
    y_at += image.to(tl.int64) * HW * C
    if PAIR:
        b_at += image.to(tl.int64) * HW * B_ROW
        x_at += image.to(tl.int64) * HW * C
    add = tl.zeros([WIDE], tl.float32)  # to all pixels of a channel: it only moves their mean
    if BIAS:
        add += tl.load(bias_at + channel, mask=valid, other=0.0).to(tl.float32)
    if ADD:
        add += tl.load(add_at + at, mask=valid, other=0.0).to(tl.float32)

    group = lane // GROUP
    count = HW * GROUP
    if ONCE:
        raw = _read(a_at, b_at, pixel, across, inside, A_ROW, B_ROW, SPLIT, PAIR, FULL)
        if PAIR:
            _store(x_at + pixel * C + across, raw, inside, FULL)
        x = raw.to(tl.float32)
        mean = _per_group(tl.sum(x, axis=0) + HW * add, group) / count - add
        off = _less(x, mean, inside, FULL)
        variance = _per_group(tl.sum(off * off, axis=0), group) / count
    else:
        total = tl.zeros([ROWS, WIDE], tl.float32)
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            within = (start + row < HW)[:, None] & valid[None, :]
            raw = _read(a_at, b_at, start + pixel, across, within, A_ROW, B_ROW, SPLIT, PAIR, FULL)
            if PAIR:
                _store(x_at + (start + pixel) * C + across, raw, within, FULL)
            total += raw.to(tl.float32)
        mean = _per_group(tl.sum(total, axis=0) + HW * add, group) / count - add
        square = tl.zeros([ROWS, WIDE], tl.float32)  # a second look: the mean square less the squared mean loses digits
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            within = (start + row < HW)[:, None] & valid[None, :]
            x = _read(a_at, b_at, start + pixel, across, within, A_ROW, B_ROW, SPLIT, PAIR, FULL).to(tl.float32)
            off = _less(x, mean, within, FULL)
            square += off * off
        variance = _per_group(tl.sum(square, axis=0), group) / count
    rstd = tl.rsqrt(variance + EPS)
    tl.store(mean_at + at, mean, mask=valid)
    tl.store(rstd_at + at, rstd, mask=valid)

    gamma, beta, _, _, _ = _conditioned(gamma_at, beta_at, condition_at, image, channel, valid, C, SCALED)
    scaled = rstd * gamma
    if ONCE:
        place = pixel * C + across
        y = _activated(off, scaled, beta, word, place, salt, image, first, threshold, up, SILU, DROP)
        _store(y_at + place, y, inside, FULL)
    else:
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            within = (start + row < HW)[:, None] & valid[None, :]
            x = _read(a_at, b_at, start + pixel, across, within, A_ROW, B_ROW, SPLIT, PAIR, FULL).to(tl.float32)
            place = (start + pixel) * C + across
            off = x - mean[None, :]
            y = _activated(off, scaled, beta, word, place, salt, image, first, threshold, up, SILU, DROP)
            _store(y_at + place, y, within, FULL)


@triton.jit
def _before(
    dy_at, x_at, pixel, channel, inside, mean, scaled, beta, word, first, image, salt, threshold, up,
    C, X_ROW, DY_ROW, FULL: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """x less its mean, and the gradient before activation and dropout."""
    off = _less(_load(x_at + pixel * X_ROW + channel, inside, FULL).to(tl.float32), mean, inside, FULL)
    dz = _load(dy_at + pixel * DY_ROW + channel, inside, FULL).to(tl.float32)
    if DROP:
        dz = _dropped(dz, word, pixel * C + channel, salt, image, first, threshold, up)
    if SILU:
        z = off * scaled[None, :] + beta[None, :]
        s = _sigmoid(z)
        dz = dz * (s + z * (s - s * s))
    return off, dz


@triton.jit
def _write(
    dz, off, da_at, db_at, besides_at, pixel, channel, inside, scaled, slope, constant,
    C, SPLIT, BESIDES_ROW, FULL: tl.constexpr, PAIR: tl.constexpr, BESIDES: tl.constexpr,
):  # fmt: skip
    """The gradient of the input, of both parts where there are two."""
    dx = dz * scaled[None, :] - (off * slope[None, :] + constant[None, :])
    if BESIDES:
        dx += _load(besides_at + pixel * BESIDES_ROW + channel, inside, FULL).to(tl.float32)
    if PAIR:
        dx = dx.to(da_at.dtype.element_ty)
        tl.store(da_at + pixel * SPLIT + channel, dx, mask=inside & (channel < SPLIT))
        tl.store(db_at + pixel * (C - SPLIT) + channel - SPLIT, dx, mask=inside & (channel >= SPLIT))
    else:
        _store(da_at + pixel * C + channel, dx, inside, FULL)


@triton.jit(do_not_specialize=["salt", "threshold"])
def _backward(
    dy_at, x_at, gamma_at, beta_at, condition_at, mean_at, rstd_at, besides_at, da_at, db_at, slopes_at, dcondition_at,
    word, first, salt, threshold, up, N, C, HW, SPLIT, X_ROW, DY_ROW, BESIDES_ROW, GROUP, TILES,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr, FULL: tl.constexpr,
    PAIR: tl.constexpr, SHIFTED: tl.constexpr, SCALED: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
    BESIDES: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    across, at = channel[None, :], image * C + channel
    row = tl.arange(0, ROWS)
    inside, pixel = (row < HW)[:, None] & valid[None, :], row[:, None]
    pixels = image.to(tl.int64) * HW
    x_at += pixels * X_ROW
    dy_at += pixels * DY_ROW
    da_at += pixels * SPLIT
    if PAIR:
        db_at += pixels * (C - SPLIT)
    if BESIDES:
        besides_at += pixels * BESIDES_ROW
    mean = tl.load(mean_at + at, mask=valid, other=0.0)
    rstd = tl.load(rstd_at + at, mask=valid, other=0.0)
    gamma, beta, scale, weight, offset = _conditioned(
        gamma_at, beta_at, condition_at, image, channel, valid, C, SCALED
    )  # fmt: skip
    scaled = rstd * gamma

    if ONCE:
        off, dz = _before(
            dy_at, x_at, pixel, across, inside, mean, scaled, beta, word, first, image, salt, threshold, up,
            C, X_ROW, DY_ROW, FULL, SILU, DROP,
        )  # fmt: skip
        sum_dz, sum_dz_off = tl.sum(dz, axis=0), tl.sum(dz * off, axis=0)
        if SHIFTED:
            sum_off = tl.sum(off, axis=0)
    else:
        all_dz = tl.zeros([ROWS, WIDE], tl.float32)
        all_dz_off = tl.zeros([ROWS, WIDE], tl.float32)
        all_off = tl.zeros([ROWS, WIDE], tl.float32)
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            within = (start + row < HW)[:, None] & valid[None, :]
            off, dz = _before(
                dy_at, x_at, start + pixel, across, within, mean, scaled, beta, word, first, image, salt, threshold, up,
                C, X_ROW, DY_ROW, FULL, SILU, DROP,
            )  # fmt: skip
            all_dz += dz
            all_dz_off += dz * off
            if SHIFTED:
                all_off += off
        sum_dz, sum_dz_off = tl.sum(all_dz, axis=0), tl.sum(all_dz_off, axis=0)
        if SHIFTED:
            sum_off = tl.sum(all_off, axis=0)
    group = lane // GROUP
    count = HW * GROUP
    constant = rstd * _per_group(gamma * sum_dz, group) / count
    slope = rstd * rstd * rstd * _per_group(gamma * sum_dz_off, group) / count
    tl.store(slopes_at + at, rstd * sum_dz_off * scale, mask=valid)
    tl.store(slopes_at + N * C + at, sum_dz * scale, mask=valid)
    if SHIFTED:
        moved = scaled * sum_dz - HW * constant - slope * sum_off
        tl.store(slopes_at + 2 * N * C + at, moved, mask=valid)
    if SCALED:
        dcondition_at += image * 2 * C + channel
        of_scale = weight * rstd * sum_dz_off + offset * sum_dz
        tl.store(dcondition_at, of_scale.to(dcondition_at.dtype.element_ty), mask=valid)
        tl.store(dcondition_at + C, sum_dz.to(dcondition_at.dtype.element_ty), mask=valid)

    if ONCE:
        _write(
            dz, off, da_at, db_at, besides_at, pixel, across, inside, scaled, slope, constant,
            C, SPLIT, BESIDES_ROW, FULL, PAIR, BESIDES,
        )  # fmt: skip
    else:
        for start in tl.range(0, HW, ROWS, num_stages=STAGES):
            within = (start + row < HW)[:, None] & valid[None, :]
            off, dz = _before(
                dy_at, x_at, start + pixel, across, within, mean, scaled, beta, word, first, image, salt, threshold, up,
                C, X_ROW, DY_ROW, FULL, SILU, DROP,
            )  # fmt: skip
            _write(
                dz, off, da_at, db_at, besides_at, start + pixel, across, within, scaled, slope, constant,
                C, SPLIT, BESIDES_ROW, FULL, PAIR, BESIDES,
            )  # fmt: skip


class Shape(NamedTuple):
    """What one program takes: channels, the power of two that holds them, rows at a time, whether these are all of
    them, whether every one of its values is there, and warps."""

    tile: int
    wide: int
    rows: int
    once: bool
    full: bool
    warps: int


def _shape(channels: int, groups: int, area: int, widest: int, most: int, several: int, each: int) -> Shape:
    """Whole groups, of at most `widest` channels together or one alone; all rows at once where these are at most `most`
    values, else as many as make `several` values; and `each` values for a warp."""
    tile, rows = channels // groups, triton.next_power_of_2(area)
    while channels % (2 * tile) == 0 and triton.next_power_of_2(2 * tile) <= widest:
        tile *= 2
    wide = triton.next_power_of_2(tile)
    once = rows * wide <= most
    rows = rows if once else max(several // wide, 1)
    warps = min(16, max(1, rows * wide // each))
    return Shape(tile, wide, rows, once, tile == wide and area % rows == 0, warps)


def _forward_shape(channels: int, groups: int, area: int, pair: bool) -> Shape:
    """Measured on an H200: an image's channels stay in registers from the first look to the last where they can."""
    most = 32_768 if pair else 16_384
    held = most // triton.next_power_of_2(area)
    once = held >= NARROWEST
    return _shape(channels, groups, area, min(held, 32) if once else 32, most, 4096, 2048 if once else 512)


def _backward_shape(channels: int, groups: int, area: int) -> Shape:
    """Measured on an H200: large images are looked at twice, since fewer registers leave more programs at work."""
    held = 1024 // triton.next_power_of_2(area)
    if held >= NARROWEST:
        return _shape(channels, groups, area, min(held, 64), 4096, 4096, 1024)
    return _shape(channels, groups, area, 64, 0, 2048, 512)


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """A tensor whose pixels are contiguous channels at one distance, as in slices of channels, and the distance."""
    c, h, w = x.shape[1:]
    row = x.stride(3)
    if x.stride() != (h * w * row, 1, w * row, row) or row < c:
        x = x.contiguous(memory_format=torch.channels_last)
        row = c
    return x, row


def _new(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _blocks(x: Tensor) -> tuple[tuple[int, int], int, int]:
    """The grid that passes over all values of x (B,C,H,W), and the channels and pixels of one program."""
    n, c, h, w = x.shape
    wide = min(triton.next_power_of_2(c), 128)
    rows = 4096 // wide
    return (triton.cdiv(n * h * w, rows), triton.cdiv(c, wide)), wide, rows


class Activate(torch.autograd.Function):
    """See `layers.activate`; the last output is x itself (a and b with their channels one after the other, where there
    is a b), so that gradients that reach it another way are added in the same pass."""

    @staticmethod
    def forward(ctx, a, b, bias, add, gamma, beta, condition, groups, eps, silu, drop):
        given, (a, a_row) = a, _rows(a)
        n, split, h, w = a.shape
        b, b_row = (None, 0) if b is None else _rows(b)
        c = split if b is None else split + b.shape[1]
        y = _new(a, (n, c, h, w))
        x = given if b is None else torch.empty_like(y)
        add, condition = (None if one is None else one.contiguous() for one in (add, condition))
        mean, rstd = torch.empty(2, n, c, device=a.device)
        shape = _forward_shape(c, groups, h * w, b is not None)
        word, first, salt, p = drop if drop else (None, None, 0, 0.0)
        threshold, up = int(p * 2**32), 1 / (1 - p)
        has = tuple(one is not None for one in (b, bias, add, condition))
        _forward[(n * (c // shape.tile),)](
            a, b, bias, add, gamma, beta, condition, y, x, mean, rstd, word, first, salt, threshold, up,
            c, h * w, split, a_row, b_row, c // groups, eps, c // shape.tile,
            *shape[:-1], *has, silu, bool(drop), num_warps=shape.warps,
        )  # fmt: skip
        ctx.save_for_backward(a if b is None else x, gamma, beta, condition, mean, rstd, word, first)
        ctx.settings = split, groups, silu, salt, threshold, up, has, bool(drop), None if add is None else add.dtype
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, besides):
        x, gamma, beta, condition, mean, rstd, word, first = ctx.saved_tensors
        split, groups, silu, salt, threshold, up, (pair, biased, added, scaled), drop, dtype = ctx.settings
        if dy is None:
            parts = (None, None) if besides is None else (besides[:, :split], besides[:, split:] if pair else None)
            return *parts, *(None,) * 9
        n, c, h, w = x.shape
        x, x_row = _rows(x)
        dy, dy_row = _rows(dy)
        besides, besides_row = (None, 0) if besides is None else _rows(besides)
        da = _new(x, (n, split, h, w))
        db = _new(x, (n, c - split, h, w)) if pair else None
        slopes = torch.empty(3 if biased or added else 2, n, c, device=x.device)  # of gamma, beta, bias for each image
        dcondition = None if condition is None else torch.empty_like(condition)
        shape = _backward_shape(c, groups, h * w)
        _backward[(n * (c // shape.tile),)](
            dy, x, gamma, beta, condition, mean, rstd, besides, da, db, slopes, dcondition,
            word, first, salt, threshold, up, n, c, h * w, split, x_row, dy_row, besides_row, c // groups,
            c // shape.tile, *shape[:-1],
            pair, biased or added, scaled, silu, drop, besides is not None, num_warps=shape.warps,
        )  # fmt: skip
        dadd = slopes[2].to(dtype) if added else None
        dgamma, dbeta, *dbias = slopes.sum(1)
        return da, db, dbias[0] if biased else None, dadd, dgamma, dbeta, dcondition, *(None,) * 4


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
    span = max(128, triton.cdiv(pixels, 256 * 64) * 64)
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
        y = _new(b, b.shape)
        grid, *block = _blocks(b)
        _join[grid](a, b, bias, y, gain, n * h * w, c, a_row, *block, a is not None)
        ctx.gain, ctx.joined = gain, a is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dy = dy.contiguous(memory_format=torch.channels_last)  # once: both convolutions before would copy a slice
        if ctx.gain != 1:
            dy = dy * ctx.gain
        return dy if ctx.joined else None, dy, columns(dy) if ctx.needs_input_grad[2] else None, None


@triton.jit
def _corners(PIXELS, C, W, ROW, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """Pixels and channels of a program, which of them there are, and where the four pixels made of each begin."""
    channel = (tl.program_id(1) * WIDE + tl.arange(0, WIDE))[None, :]
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    line, column = pixel // W, pixel % W  # lines of all images
    corner = (line.to(tl.int64) * 4 * W + column * 2) * ROW
    return pixel.to(tl.int64)[:, None], channel, (pixel < PIXELS)[:, None] & (channel < C), corner[:, None] + channel


@triton.jit
def _double(x_at, y_at, PIXELS, C, W, ROW, WIDE: tl.constexpr, ROWS: tl.constexpr):
    pixel, channel, inside, corner = _corners(PIXELS, C, W, C, WIDE, ROWS)
    x = tl.load(x_at + pixel * ROW + channel, mask=inside)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            tl.store(y_at + corner + (down * 2 * W + right) * C, x, mask=inside)


@triton.jit
def _halve(dy_at, dx_at, PIXELS, C, W, ROW, WIDE: tl.constexpr, ROWS: tl.constexpr):
    pixel, channel, inside, corner = _corners(PIXELS, C, W, ROW, WIDE, ROWS)
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            total += tl.load(dy_at + corner + (down * 2 * W + right) * ROW, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx_at + pixel * C + channel, total.to(dx_at.dtype.element_ty), mask=inside)


class Double(torch.autograd.Function):
    """x (B,C,H,W) -> (B,C,2H,2W), every pixel four times."""

    @staticmethod
    def forward(ctx, x):
        x, row = _rows(x)
        n, c, h, w = x.shape
        y = _new(x, (n, c, 2 * h, 2 * w))
        grid, *block = _blocks(x)
        _double[grid](x, y, n * h * w, c, w, row, *block)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dy, row = _rows(dy)
        n, c, h, w = dy.shape
        dx = _new(dy, (n, c, h // 2, w // 2))
        grid, *block = _blocks(dx)
        _halve[grid](dy, dx, n * (h // 2) * (w // 2), c, w // 2, row, *block)
        return dx
