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
def _dropped(y, word, place, salt, image, first, threshold, up):
    """Dropout: by the step's word, the layer's and call's salt, the image and the place in it."""
    key = _scrambled((image + tl.load(first)).to(tl.uint32) * 2 + 1) ^ tl.load(word).to(tl.uint32)
    key = _scrambled(_scrambled(key) + salt.to(tl.uint32))
    kept = _scrambled(place.to(tl.uint32) * (key | 1) + _scrambled(key)) >= threshold
    return tl.where(kept, y * up, 0.0)


@triton.jit
def _per_group(values, group):
    """Sums over the channels of a group, at each channel."""
    return tl.sum(tl.where(group[:, None] == group[None, :], values[None, :], 0.0), axis=1)


@triton.jit
def _added(bias_at, add_at, at, channel, valid, BIAS: tl.constexpr, ADD: tl.constexpr):
    """What is added to all pixels of a channel."""
    add = tl.load(bias_at + channel, mask=valid, other=0.0).to(tl.float32) if BIAS else 0.0
    if ADD:
        add += tl.load(add_at + at, mask=valid, other=0.0).to(tl.float32)
    return add


@triton.jit
def _conditioned(gamma, beta, condition_at, image, channel, valid, C, SCALED: tl.constexpr):
    """Scale and shift of an image's channels, and the 1 + scale in them."""
    scale = 1.0
    if SCALED:
        condition_at += image * 2 * C
        scale += tl.load(condition_at + channel, mask=valid, other=0.0).to(tl.float32)
        beta = beta * scale + tl.load(condition_at + C + channel, mask=valid, other=0.0).to(tl.float32)
        gamma = gamma * scale
    return gamma, beta, scale


@triton.jit
def _read(
    a_at, b_at, pixel, channel, inside, add, A_ROW, B_ROW, SPLIT, PAIR: tl.constexpr, SHIFTED: tl.constexpr
):  # fmt: skip
    """The input as it came, and in float32 with what is added; channels from SPLIT on are those of a second tensor."""
    if PAIR:
        raw = tl.load(a_at + pixel * A_ROW + channel, mask=inside & (channel < SPLIT), other=0.0)
        raw += tl.load(b_at + pixel * B_ROW + channel - SPLIT, mask=inside & (channel >= SPLIT), other=0.0)
    else:
        raw = tl.load(a_at + pixel * A_ROW + channel, mask=inside, other=0.0)
    x = raw.to(tl.float32)
    if SHIFTED:
        x = tl.where(inside, x + add[None, :], 0.0)
    return raw, x


@triton.jit
def _normalised(
    x, mean, rstd, gamma, beta, word, place, salt, image, first, threshold, up, SILU: tl.constexpr, DROP: tl.constexpr
):  # fmt: skip
    y = (x - mean[None, :]) * rstd[None, :] * gamma[None, :] + beta[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    return _dropped(y, word, place, salt, image, first, threshold, up) if DROP else y


@triton.jit(do_not_specialize=["salt", "threshold"])
def _forward(
    a_at, b_at, bias_at, add_at, gamma_at, beta_at, condition_at, y_at, x_at, mean_at, rstd_at,
    word, first, salt, threshold, up, C, HW, SPLIT, A_ROW, B_ROW, GROUP, EPS, TILES,
    TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr, PAIR: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr, SCALED: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES  # neighbours share lines of memory
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    across, at = channel[None, :], image * C + channel
    row = tl.arange(0, ROWS)
    a_at += image.to(tl.int64) * HW * A_ROW
    y_at += image.to(tl.int64) * HW * C
    if PAIR:
        b_at += image.to(tl.int64) * HW * B_ROW
        x_at += image.to(tl.int64) * HW * C
    SHIFTED: tl.constexpr = BIAS or ADD
    add = _added(bias_at, add_at, at, channel, valid, BIAS, ADD)

    group = lane // GROUP
    count = HW * GROUP
    inside, pixel = (row < HW)[:, None] & valid[None, :], row[:, None]
    if ONCE:
        raw, x = _read(a_at, b_at, pixel, across, inside, add, A_ROW, B_ROW, SPLIT, PAIR, SHIFTED)
        mean = _per_group(tl.sum(x, axis=0), group) / count
        off = tl.where(inside, x - mean[None, :], 0.0)
        variance = _per_group(tl.sum(off * off, axis=0), group) / count
    else:
        total = tl.zeros([ROWS, WIDE], tl.float32)
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            raw, x = _read(a_at, b_at, start + pixel, across, within, add, A_ROW, B_ROW, SPLIT, PAIR, SHIFTED)
            total += x
        mean = _per_group(tl.sum(total, axis=0), group) / count
        square = tl.zeros([ROWS, WIDE], tl.float32)  # a second look, since the mean square less the squared mean loses digits
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            raw, x = _read(a_at, b_at, start + pixel, across, within, add, A_ROW, B_ROW, SPLIT, PAIR, SHIFTED)
            off = tl.where(within, x - mean[None, :], 0.0)
            square += off * off
        variance = _per_group(tl.sum(square, axis=0), group) / count
    rstd = tl.rsqrt(variance + EPS)
    tl.store(mean_at + at, mean, mask=valid)
    tl.store(rstd_at + at, rstd, mask=valid)

    gamma = tl.load(gamma_at + channel, mask=valid, other=0.0)
    beta = tl.load(beta_at + channel, mask=valid, other=0.0)
    gamma, beta, _ = _conditioned(gamma, beta, condition_at, image, channel, valid, C, SCALED)
    if ONCE:
        place = pixel * C + across
        y = _normalised(x, mean, rstd, gamma, beta, word, place, salt, image, first, threshold, up, SILU, DROP)
        tl.store(y_at + place, y.to(y_at.dtype.element_ty), mask=inside)
        if PAIR:
            tl.store(x_at + place, raw, mask=inside)
    else:
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            raw, x = _read(a_at, b_at, start + pixel, across, within, add, A_ROW, B_ROW, SPLIT, PAIR, SHIFTED)
            place = (start + pixel) * C + across
            y = _normalised(x, mean, rstd, gamma, beta, word, place, salt, image, first, threshold, up, SILU, DROP)
            tl.store(y_at + place, y.to(y_at.dtype.element_ty), mask=within)
            if PAIR:
                tl.store(x_at + place, raw, mask=within)


@triton.jit
def _before(
    dy_at, x_at, pixel, channel, inside, mean, rstd, gamma, beta, word, first, image, salt, threshold, up,
    C, X_ROW, DY_ROW, SILU: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """Normalised x, and the gradient before activation and dropout."""
    x = tl.load(x_at + pixel * X_ROW + channel, mask=inside, other=0.0).to(tl.float32)
    x = tl.where(inside, (x - mean[None, :]) * rstd[None, :], 0.0)
    dz = tl.load(dy_at + pixel * DY_ROW + channel, mask=inside, other=0.0).to(tl.float32)
    if DROP:
        dz = _dropped(dz, word, pixel * C + channel, salt, image, first, threshold, up)
    if SILU:
        z = x * gamma[None, :] + beta[None, :]
        s = tl.sigmoid(z)
        dz = dz * s * (1 + z * (1 - s))
    return x, dz


@triton.jit
def _write(
    dz, x, da_at, db_at, besides_at, pixel, channel, inside, rstd, gamma, constant, slope,
    C, SPLIT, BESIDES_ROW, PAIR: tl.constexpr, BESIDES: tl.constexpr,
):  # fmt: skip
    """The gradient of the input, of both parts where there are two."""
    dx = rstd[None, :] * (dz * gamma[None, :] - constant[None, :] - x * slope[None, :])
    if BESIDES:
        dx += tl.load(besides_at + pixel * BESIDES_ROW + channel, mask=inside, other=0.0).to(tl.float32)
    dx = dx.to(da_at.dtype.element_ty)
    if PAIR:
        tl.store(da_at + pixel * SPLIT + channel, dx, mask=inside & (channel < SPLIT))
        tl.store(db_at + pixel * (C - SPLIT) + channel - SPLIT, dx, mask=inside & (channel >= SPLIT))
    else:
        tl.store(da_at + pixel * C + channel, dx, mask=inside)


@triton.jit(do_not_specialize=["salt", "threshold"])
def _backward(
    dy_at, x_at, bias_at, add_at, gamma_at, beta_at, condition_at, mean_at, rstd_at, besides_at, da_at, db_at,
    slopes_at, dcondition_at, word, first, salt, threshold, up, N, C, HW, SPLIT, X_ROW, DY_ROW, BESIDES_ROW, GROUP,
    TILES, TILE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, ONCE: tl.constexpr, PAIR: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr, SCALED: tl.constexpr, SILU: tl.constexpr, DROP: tl.constexpr,
    BESIDES: tl.constexpr,
):  # fmt: skip
    image, tile = tl.program_id(0) // TILES, tl.program_id(0) % TILES
    lane = tl.arange(0, WIDE)
    channel = tile * TILE + lane
    valid = (lane < TILE) & (channel < C)
    across, at = channel[None, :], image * C + channel
    row = tl.arange(0, ROWS)
    pixels = image.to(tl.int64) * HW
    x_at += pixels * X_ROW
    dy_at += pixels * DY_ROW
    if BESIDES:
        besides_at += pixels * BESIDES_ROW
    da_at += pixels * SPLIT
    if PAIR:
        db_at += pixels * (C - SPLIT)
    mean = tl.load(mean_at + at, mask=valid, other=0.0) - _added(bias_at, add_at, at, channel, valid, BIAS, ADD)
    rstd = tl.load(rstd_at + at, mask=valid, other=0.0)
    weight = tl.load(gamma_at + channel, mask=valid, other=0.0)
    offset = tl.load(beta_at + channel, mask=valid, other=0.0)
    gamma, beta, scale = _conditioned(weight, offset, condition_at, image, channel, valid, C, SCALED)

    SHIFTED: tl.constexpr = BIAS or ADD
    inside, pixel = (row < HW)[:, None] & valid[None, :], row[:, None]
    if ONCE:
        x, dz = _before(
            dy_at, x_at, pixel, across, inside, mean, rstd, gamma, beta, word, first, image, salt, threshold, up,
            C, X_ROW, DY_ROW, SILU, DROP,
        )  # fmt: skip
        sum_dz, sum_dz_x = tl.sum(dz, axis=0), tl.sum(dz * x, axis=0)
        if SHIFTED:
            sum_x = tl.sum(x, axis=0)
    else:
        all_dz = tl.zeros([ROWS, WIDE], tl.float32)
        all_dz_x = tl.zeros([ROWS, WIDE], tl.float32)
        all_x = tl.zeros([ROWS, WIDE], tl.float32)
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            x, dz = _before(
                dy_at, x_at, start + pixel, across, within, mean, rstd, gamma, beta, word, first, image, salt,
                threshold, up, C, X_ROW, DY_ROW, SILU, DROP,
            )  # fmt: skip
            all_dz += dz
            all_dz_x += dz * x
            if SHIFTED:
                all_x += x
        sum_dz, sum_dz_x = tl.sum(all_dz, axis=0), tl.sum(all_dz_x, axis=0)
        if SHIFTED:
            sum_x = tl.sum(all_x, axis=0)
    group = lane // GROUP
    count = HW * GROUP
    constant = _per_group(gamma * sum_dz, group) / count
    slope = _per_group(gamma * sum_dz_x, group) / count
    tl.store(slopes_at + at, sum_dz_x * scale, mask=valid)
    tl.store(slopes_at + N * C + at, sum_dz * scale, mask=valid)
    if SHIFTED:
        moved = rstd * (gamma * sum_dz - HW * constant - slope * sum_x)
        tl.store(slopes_at + 2 * N * C + at, moved, mask=valid)
    if SCALED:
        dcondition_at += image * 2 * C + channel
        of_scale = weight * sum_dz_x + offset * sum_dz
        tl.store(dcondition_at, of_scale.to(dcondition_at.dtype.element_ty), mask=valid)
        tl.store(dcondition_at + C, sum_dz.to(dcondition_at.dtype.element_ty), mask=valid)

    if ONCE:
        _write(
            dz, x, da_at, db_at, besides_at, pixel, across, inside, rstd, gamma, constant, slope,
            C, SPLIT, BESIDES_ROW, PAIR, BESIDES,
        )  # fmt: skip
    else:
        for start in range(0, HW, ROWS):
            within = (start + row < HW)[:, None] & valid[None, :]
            x, dz = _before(
                dy_at, x_at, start + pixel, across, within, mean, rstd, gamma, beta, word, first, image, salt,
                threshold, up, C, X_ROW, DY_ROW, SILU, DROP,
            )  # fmt: skip
            _write(
                dz, x, da_at, db_at, besides_at, start + pixel, across, within, rstd, gamma, constant, slope,
                C, SPLIT, BESIDES_ROW, PAIR, BESIDES,
            )  # fmt: skip


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
        tile, wide, rows, once, warps = _tiles(c, groups, h * w)
        word, first, salt, p = drop if drop else (None, None, 0, 0.0)
        threshold, up = int(p * 2**32), 1 / (1 - p)
        has = tuple(one is not None for one in (b, bias, add, condition))
        _forward[(n * (c // tile),)](
            a, b, bias, add, gamma, beta, condition, y, x, mean, rstd, word, first, salt, threshold, up,
            c, h * w, split, a_row, b_row, c // groups, eps, c // tile,
            tile, wide, rows, once, *has, silu, bool(drop), num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(a if b is None else x, bias, add, gamma, beta, condition, mean, rstd, word, first)
        ctx.settings = split, groups, silu, salt, threshold, up, has, bool(drop)
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, besides):
        x, bias, add, gamma, beta, condition, mean, rstd, word, first = ctx.saved_tensors
        split, groups, silu, salt, threshold, up, has, drop = ctx.settings
        if dy is None:
            parts = (None, None) if besides is None else (besides[:, :split], besides[:, split:] if has[0] else None)
            return *parts, *(None,) * 9
        n, c, h, w = x.shape
        x, x_row = _rows(x)
        dy, dy_row = _rows(dy)
        besides, besides_row = (None, 0) if besides is None else _rows(besides)
        da = _new(x, (n, split, h, w))
        db = _new(x, (n, c - split, h, w)) if has[0] else None
        slopes = torch.empty(3 if has[1] or has[2] else 2, n, c, device=x.device)
        dcondition = None if condition is None else torch.empty_like(condition)
        tile, wide, rows, once, warps = _tiles(c, groups, h * w)
        _backward[(n * (c // tile),)](
            dy, x, bias, add, gamma, beta, condition, mean, rstd, besides, da, db, slopes, dcondition,
            word, first, salt, threshold, up, n, c, h * w, split, x_row, dy_row, besides_row, c // groups, c // tile,
            tile, wide, rows, once, *has, silu, drop, besides is not None, num_warps=warps,
        )  # fmt: skip
        dgamma, dbeta, *dbias = slopes.sum(1)
        dbias = dbias[0] if has[1] else None
        return da, db, dbias, slopes[2].to(add.dtype) if has[2] else None, dgamma, dbeta, dcondition, *(None,) * 4


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
