"""Random numbers without state: Philox4x32-10 (Salmon et al., 2011), vectorised in torch.

Every number is a function of (seed, stream, sample index, step, position). So results do not depend on batch size,
on how samples are spread over devices, or on whether a run was interrupted. CPU and GPU give the same integers;
normals agree to the last bits of log and cos.
"""

from collections.abc import Sequence
from math import pi, prod

import torch
from torch import Tensor

from pipeline_lib.device import has_kernels
from pipeline_lib.diffusion.streams import Stream

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Ten rounds of Philox4x32: four int64 tensors of 32-bit words (any broadcastable shapes) -> four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low = c0 * _MULTIPLIERS[0]  # wraps to the low 64 bits; the masks below read them as unsigned
        high = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((high >> 32) & _MASK) ^ c1 ^ k0,
            high & _MASK,
            ((low >> 32) & _MASK) ^ c3 ^ k1,
            low & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


class Noise:
    """Draws keyed by `seed`. `index` (B,) numbers the samples, `step` the step, `sub` the draw within one purpose."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.key = seed, (seed & _MASK, (seed >> 32) & _MASK)
        self.device = torch.device(device)

    def words(self, stream: Stream, index: Tensor, step: int | Tensor, count: int, sub: int = 0) -> Tensor:
        """(B, count) int64 with uniform values in [0, 2^32). `step` may be a tensor (1,) of this device."""
        if self.device.type == "cuda" and has_kernels():
            from pipeline_lib.diffusion.noise_kernel import words

            return words(index.to(self.device, torch.int64), step, count, int(stream) | sub << 8, self.key)
        blocks = torch.arange(-(-count // 4), device=self.device)
        samples = index.to(self.device, torch.int64)[:, None]
        purpose = torch.tensor(int(stream) | sub << 8, device=self.device)
        out = philox((blocks, samples, torch.as_tensor(step, device=self.device), purpose), self.key)
        return torch.stack(torch.broadcast_tensors(*out), dim=-1).flatten(1)[:, :count]

    def uniform(
        self, stream: Stream, index: Tensor, step: int | Tensor, shape: Sequence[int] = (), sub: int = 0
    ) -> Tensor:
        """(B, *shape) float32, uniform in the open interval (0, 1), on a lattice of 2^23 points."""
        words = self.words(stream, index, step, prod(shape), sub)
        return _unit(words).reshape(len(index), *shape)

    def normal(self, stream: Stream, index: Tensor, step: int | Tensor, shape: Sequence[int], sub: int = 0) -> Tensor:
        """(B, *shape) float32, standard normal by Box and Muller, so bounded by 5.77."""
        count = prod(shape)
        unit = _unit(self.words(stream, index, step, count + count % 2, sub))
        radius = (-2 * unit[:, 0::2].log()).sqrt()
        angle = 2 * pi * unit[:, 1::2]
        pairs = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
        return pairs.flatten(1)[:, :count].reshape(len(index), *shape)

    def permutation(self, stream: Stream, count: int, step: int) -> Tensor:
        """(count,) int64: a random order of 0..count-1."""
        words = self.words(stream, torch.arange(count), step, 2)
        return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)


def _unit(words: Tensor) -> Tensor:
    """32-bit words -> float32 in (0, 1); 23 bits and a half, so that no value rounds to 0 or 1."""
    return ((words >> 9).to(torch.float32) + 0.5) * 2.0**-23
