"""Philox words on a GPU in one kernel; `noise.philox` is the same in torch's integers and the reference of its test."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit(do_not_specialize=["step", "purpose", "key0", "key1"])
def _words(out, index, step_at, step, purpose, key0, key1, count, BLOCK: tl.constexpr, AT: tl.constexpr):
    row = tl.program_id(0)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], tl.uint32)
    sample = tl.load(index + row).to(tl.uint32)
    if AT:
        step = tl.load(step_at)
    c0, c1, c2, c3 = block.to(tl.uint32), zero + sample, zero + step.to(tl.uint32), zero + purpose.to(tl.uint32)
    k0, k1 = key0.to(tl.uint32), key1.to(tl.uint32)
    for _ in tl.static_range(10):
        low, high = c0, c2
        c0 = tl.umulhi(high, zero + 0xCD9E8D57) ^ c1 ^ k0
        c2 = tl.umulhi(low, zero + 0xD2511F53) ^ c3 ^ k1
        c1 = high * 0xCD9E8D57
        c3 = low * 0xD2511F53
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    at = out + row.to(tl.int64) * count
    tl.store(at + 4 * block, c0.to(tl.int64), mask=4 * block < count)
    tl.store(at + 4 * block + 1, c1.to(tl.int64), mask=4 * block + 1 < count)
    tl.store(at + 4 * block + 2, c2.to(tl.int64), mask=4 * block + 2 < count)
    tl.store(at + 4 * block + 3, c3.to(tl.int64), mask=4 * block + 3 < count)


def words(index: Tensor, step: int | Tensor, count: int, purpose: int, key: tuple[int, int]) -> Tensor:
    """(B, count) int64, as `Noise.words`."""
    index = index.contiguous()
    out = torch.empty(len(index), count, dtype=torch.int64, device=index.device)
    at = step if isinstance(step, Tensor) else None
    grid = (len(index), triton.cdiv(triton.cdiv(count, 4), BLOCK))
    if out.numel():
        fixed = 0 if at is not None else step
        _words[grid](out, index, at, fixed, purpose, *key, count, BLOCK, at is not None)
    return out
