"""How sure an MMD^2 is: a jackknife from kernel row sums, and the permutation null."""

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.diffusion.mmd import Statistic
from pipeline_lib.errors.jackknife import Estimate


def estimate(xx: Tensor, xy: Tensor, yy: Tensor, statistic: Statistic = "u") -> Estimate:
    """MMD^2 with its jackknife from k(x, x) (n,n), k(x, y) (n,m), k(y, y) (m,m) in O(n^2 + m^2) sums; n, m >= 3."""
    chains, forward = _Side(xx, statistic), _Side(yy, statistic)
    across, down = xy.sum(1, dtype=torch.float64), xy.sum(0, dtype=torch.float64)
    total, n, m = float(across.sum()), chains.n, forward.n
    value = chains.mean - 2 * total / (n * m) + forward.mean
    without_chain = chains.means_without() - 2 * (total - across) / ((n - 1) * m)
    without_forward = forward.means_without() - 2 * (total - down) / (n * (m - 1))
    return Estimate(value, _influence(without_chain), _influence(without_forward))


class _Side:
    """The mean of one within-sample kernel matrix, and what it is without each sample."""

    def __init__(self, matrix: Tensor, statistic: Statistic) -> None:
        diagonal = matrix.diagonal().to(torch.float64)
        self.n, self.is_v = len(matrix), statistic == "v"
        self.rows = matrix.sum(1, dtype=torch.float64) - (0 if self.is_v else diagonal)
        self.diagonal = diagonal if self.is_v else torch.zeros_like(diagonal)
        self.total = float(self.rows.sum())

    def _pairs(self, n: int) -> int:
        return n * n if self.is_v else n * (n - 1)

    @property
    def mean(self) -> float:
        return self.total / self._pairs(self.n)

    def means_without(self) -> Tensor:
        return (self.total - 2 * self.rows + self.diagonal) / self._pairs(self.n - 1)


def _influence(without: Tensor) -> np.ndarray:
    return ((len(without) - 1) * (without.mean() - without)).cpu().numpy()


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
