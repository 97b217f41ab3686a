"""Nearest neighbours among features, in blocks: precision, recall, and the distance to the nearest training image.

Precision and recall are those of Kynkaanniemi et al. (2019): the manifold of a set is the union of balls around its
points that reach to their k-th neighbour in the set. Memory is bounded by one block of distances, whatever the sizes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 3  # k of Kynkaanniemi et al., Sec. 3
BLOCK = 2**24  # distances at once: 64 MB of float32


def blocks(x: Tensor, y: Tensor, size: int = BLOCK) -> Iterator[Tensor]:
    """Squared distances of the rows of x (n,D) to those of y (m,D), float32, a block (b,m) at a time.

    Both sets are shifted by one mean, so that smaller norms lose fewer digits in the Gram form.
    """
    centre = y.mean(0)
    y = y - centre
    norms = y.square().sum(1)
    for part in x.split(max(1, size // max(1, len(y)))):
        part = part - centre
        yield torch.addmm(part.square().sum(1, keepdim=True) + norms, part, y.T, alpha=-2).clamp_min_(0)


def radii(points: Tensor, k: int = NEIGHBOURS, size: int = BLOCK) -> Tensor:
    """Squared distance (n,) of each point (n,D) to its k-th neighbour in the set; raises ValueError for n <= k."""
    if len(points) <= k:
        raise ValueError(f"{len(points)} points have no {k}-th neighbour")
    return torch.cat([d.kthvalue(k + 1, dim=1).values for d in blocks(points, points, size)])  # the nearest is itself


def covered(x: Tensor, points: Tensor, within: Tensor, size: int = BLOCK) -> Tensor:
    """Whether each x (n,D) lies in the ball of any point (m,D) of squared radius `within` (m,); bool (n,)."""
    return torch.cat([(d <= within).any(1) for d in blocks(x, points, size)])


def nearest(x: Tensor, points: Tensor, size: int = BLOCK) -> Tensor:
    """Distance (n,) of each x (n,D) to the nearest of the points (m,D)."""
    return torch.cat([d.amin(1) for d in blocks(x, points, size)]).sqrt()
