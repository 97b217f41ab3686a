"""The squared maximum mean discrepancy from kernel matrices (Gretton et al., 2012), differentiable."""

from typing import Literal

import torch
from torch import Tensor

Statistic = Literal["u", "v"]


def mmd2(xx: Tensor, xy: Tensor, yy: Tensor, statistic: Statistic = "u") -> Tensor:
    """MMD^2 from k(x, x) (..., n, n), k(x, y) (..., n, m) and k(y, y) (..., m, m) -> (...), float64.

    'u' leaves the diagonals out and is unbiased, so it can be negative (Gretton et al., Eq. 3; Eq. 13 of Li and van der
    Schaar calls itself unbiased). 'v' keeps them (Gretton et al., Eq. 5): never negative, and larger by
    (1 - mean k(x, x')) / n + (1 - mean k(y, y')) / m for kernels with k(x, x) = 1. Leading dimensions are groups.
    """
    return _within(xx, statistic) - 2 * xy.mean((-2, -1), dtype=torch.float64) + _within(yy, statistic)


def _within(matrix: Tensor, statistic: Statistic) -> Tensor:
    total, n = matrix.sum((-2, -1), dtype=torch.float64), matrix.shape[-1]
    if statistic == "v":
        return total / n**2
    return (total - matrix.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)) / (n * (n - 1))
