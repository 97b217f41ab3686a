"""The kernel distance: MMD^2 under the cubic kernel (x.y / D + 1)^3 (Binkowski et al., 2018, Sec. 4), over all pairs.

On Inception features it is KID. Published numbers are means over 100 subsets of 1000 images: the same expectation, with
more noise. The estimate is unbiased at any number of samples, and can be negative.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline_lib.scores.estimates import Estimate

BLOCK = 2**24


def _rows(x: Tensor, y: Tensor) -> Tensor:
    """Sum (n,) over the rows of y (m,D) of the kernel with each row of x (n,D), in float64."""
    return torch.cat([block.sum(1) for block in _blocks(x, y)])


def _blocks(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    for part in x.split(max(1, BLOCK // max(1, len(y)))):
        yield ((part @ y.T).double() / x.shape[1] + 1) ** 3


def _own(x: Tensor) -> Tensor:
    """k(x_i, x_i) (n,), as the blocks have it."""
    return (x.square().sum(1).double() / x.shape[1] + 1) ** 3


def within(x: Tensor) -> float:
    """Mean kernel of two different rows of x (n,D); raises ValueError below two."""
    if len(x) < 2:
        raise ValueError(f"a mean over pairs needs two samples, there are {len(x)}")
    return float((_rows(x, x) - _own(x)).sum()) / (len(x) * (len(x) - 1))


def estimate(reference: Tensor, reference_within: float, samples: Tensor) -> Estimate:
    """MMD^2 of samples (n,D) against reference (m,D), float32, whose own mean kernel is known.

    The influence of a sample is twice its mean kernel with the other samples less that with the reference, centred
    (Hoeffding's projection of the U-statistic).
    """
    n, m = len(samples), len(reference)
    if n < 2:
        raise ValueError(f"a mean over pairs needs two samples, there are {n}")
    across = _rows(samples, reference) / m
    witness = (_rows(samples, samples) - _own(samples)) / (n - 1) - across
    value = float((witness - across).mean()) + reference_within
    return Estimate(value, (2 * (witness - witness.mean())).cpu().numpy())
