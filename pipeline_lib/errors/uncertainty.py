"""How sure an MMD^2 is: a jackknife from kernel row sums, and the permutation null."""

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.diffusion.mmd import Statistic
from pipeline_lib.errors.jackknife import Estimate


def estimate(xx: Tensor, xy: Tensor, yy: Tensor, statistic: Statistic = "u") -> Estimate:
    """MMD^2 with its jackknife from k(x, x) (n,n), k(x, y) (n,m), k(y, y) (m,m) in O(n^2 + m^2) sums; n, m >= 3."""
    n, m = xy.shape
    return of_sums(sums(xx, xy, yy).cpu().numpy(), n, m, statistic)


def sums(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """All that an estimate needs of the kernel matrices: row sums and diagonals, (3 (n + m),) float64.

    One vector, so that many estimates cross from a GPU at once: each crossing waits for all work before it.
    """
    exact = torch.float64
    parts = xx.sum(1, dtype=exact), xx.diagonal().to(exact), xy.sum(1, dtype=exact)
    return torch.cat((*parts, xy.sum(0, dtype=exact), yy.sum(1, dtype=exact), yy.diagonal().to(exact)))


def of_sums(flat: np.ndarray, n: int, m: int, statistic: Statistic = "u") -> Estimate:
    """The estimate from what `sums` gives."""
    rows_x, of_x, across, down, rows_y, of_y = np.split(flat, np.cumsum([n, n, n, m, m]))
    chains, forward = _Side(rows_x, of_x, statistic), _Side(rows_y, of_y, statistic)
    total = across.sum()
    value = chains.mean - 2 * total / (n * m) + forward.mean
    without_chain = chains.means_without() - 2 * (total - across) / ((n - 1) * m)
    without_forward = forward.means_without() - 2 * (total - down) / (n * (m - 1))
    return Estimate(float(value), _influence(without_chain), _influence(without_forward))


class _Side:
    """The mean of one within-sample kernel matrix, and what it is without each sample."""

    def __init__(self, rows: np.ndarray, diagonal: np.ndarray, statistic: Statistic) -> None:
        self.n, self.is_v = len(rows), statistic == "v"
        self.rows = rows if self.is_v else rows - diagonal
        self.diagonal = diagonal if self.is_v else np.zeros_like(diagonal)
        self.total = self.rows.sum()

    def _pairs(self, n: int) -> int:
        return n * n if self.is_v else n * (n - 1)

    @property
    def mean(self) -> float:
        return self.total / self._pairs(self.n)

    def means_without(self) -> np.ndarray:
        return (self.total - 2 * self.rows + self.diagonal) / self._pairs(self.n - 1)


def _influence(without: np.ndarray) -> np.ndarray:
    return (len(without) - 1) * (without.mean() - without)


def labellings(n: int, m: int, permutations: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """(n + m, P) float64 of 0 and 1: each column labels n samples of the pool as chains. The same at every t."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([[1.0], [0.0]], [n, m], axis=0).repeat(permutations, axis=1)
    return torch.from_numpy(rng.permuted(labels, axis=0)).to(device)


def permutation_null(xx: Tensor, xy: Tensor, yy: Tensor, labels: Tensor, statistic: Statistic = "u") -> np.ndarray:
    """MMD^2 (P,) under each labelling of the pooled sample: one product of the pooled kernel matrix with all of them.

    `labels` as from `labellings`. Exact under exchangeability (Gretton et al., 2012), unlike asymptotic nulls.
    """
    n, m = xy.shape
    pooled = torch.cat((torch.cat((xx, xy), 1), torch.cat((xy.T, yy), 1))).to(torch.float64)
    trace = pooled.diagonal().clone()
    pooled.fill_diagonal_(0)
    product = pooled @ labels
    within_x = (labels * product).sum(0)
    across = ((1 - labels) * product).sum(0)
    within_y = pooled.sum() - within_x - 2 * across
    if statistic == "v":
        of_x = trace @ labels
        null = (within_x + of_x) / n**2 + (within_y + trace.sum() - of_x) / m**2
    else:
        null = within_x / (n * (n - 1)) + within_y / (m * (m - 1))
    return (null - 2 * across / (n * m)).cpu().numpy()


def p_value(value: float, null: np.ndarray) -> float:
    """(1 + #{null >= value}) / (1 + P): never 0, and valid at every level."""
    return (1 + int((null >= value).sum())) / (1 + len(null))
