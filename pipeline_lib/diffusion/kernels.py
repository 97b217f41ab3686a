"""Kernels as functions of the squared L2 distance, so that one matrix of distances serves them all."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.device import full_float32

Scale = float | Tensor


class _Product(torch.autograd.Function):
    """x y^T in full float32, backwards too, whenever that is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x @ y.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        with full_float32(gradient.device.type):
            return gradient @ y, gradient.mT @ x


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """||x_i - y_j||^2 in the Gram form: x (..., n, d) and y (..., m, d) -> (..., n, m), float32 and differentiable.

    Without y the distances within x, whose diagonal is exactly 0. Inputs of any precision are cast to float32, and
    both sets are shifted by the mean of one: distances stay, but smaller norms lose fewer digits.
    """
    with full_float32(x.device.type):
        other = x if y is None else y
        centre = other.detach().float().mean(-2, keepdim=True)
        x, other = x.float() - centre, other.float() - centre
        norms = x.square().sum(-1).unsqueeze(-1) + other.square().sum(-1).unsqueeze(-2)
        squared = (norms - 2 * _Product.apply(x, other)).clamp_min(0)
    if y is not None:
        return squared
    return squared.masked_fill(torch.eye(x.shape[-2], dtype=torch.bool, device=x.device), 0)


def laplace(squared: Tensor, length_scale: Scale) -> Tensor:
    """exp(-d / l) on the L2 distance d."""
    smallest = torch.finfo(squared.dtype).tiny  # the root's slope is infinite at 0; below this the clamp's is 0
    return torch.exp(-squared.clamp_min(smallest).sqrt() / length_scale)


def gaussian(squared: Tensor, length_scale: Scale) -> Tensor:
    """exp(-d^2 / (2 l^2))."""
    return torch.exp(-squared / (2 * length_scale**2))


def rational_quadratic(squared: Tensor, length_scale: Scale) -> Tensor:
    """(1 + d^2 / (2 alpha l^2))^-alpha with alpha = 1."""
    return 1 / (1 + squared / (2 * length_scale**2))


KERNELS: dict[str, Callable[[Tensor, Scale], Tensor]] = {
    "laplace": laplace,
    "gaussian": gaussian,
    "rational-quadratic": rational_quadratic,
}
