"""Reverse transitions t -> t - 1 of a batch whose images are at different t, and the rollouts made of them."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.diffusion.denoiser import Denoising
from pipeline_lib.diffusion.everywhere import Everywhere
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.paths import VPPath

Variance = Callable[[Step], float]


def fixed_small(step: Step) -> float:
    """beta~_t, the variance of q(x_{t-1} | x_t, x_0); 0 at the last step."""
    return step.posterior_variance


def fixed_large(step: Step) -> float:
    """beta_t, the variance of q(x_t | x_{t-1}); 0 at the last step, where ancestral sampling adds no noise."""
    return 0.0 if step.is_last else step.forward_variance


VARIANCES: dict[str, Variance] = {"fixed-small": fixed_small, "fixed-large": fixed_large}


class Transitions:
    """x_{t-1} = c_x0 x_0 + c_xt x_t + std z for every t in {1..T}: Eq. 7 of Ho et al. (2020) at the predicted x_0."""

    def __init__(self, path: VPPath, variance: Variance) -> None:
        """`variance` gives the reverse variance of each step of the full grid."""
        steps = reversed(list(path.grid(path.timesteps)))
        rows = [(step.c_x0, step.c_xt, variance(step) ** 0.5) for step in steps]
        unused = (float("nan"),) * 3  # nothing leads on from t = 0
        self._table = Everywhere(torch.tensor([unused, *rows], dtype=torch.float64).T.to(torch.float32).contiguous())

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_x0, c_xt and std, float32, of the shape of t."""
        c_x0, c_xt, std = self._table.on(t.device)[:, t.long()]
        return c_x0, c_xt, std

    def move(self, x0: Tensor, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_{t-1} from a predicted x_0 (B,C,H,W), which is not clipped, x = x_t, t (B,) and standard normal z."""
        c_x0, c_xt, std = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in self.at(t))
        return c_x0 * x0 + c_xt * x + std * z


def rollout(
    denoiser: Denoising,
    x: Tensor,
    s: Tensor,
    length: Tensor,
    transitions: Transitions,
    normal: Callable[[Tensor, int], Tensor],
    labels: Tensor | None = None,
    gradient: Literal["chain", "last"] = "chain",
    counts: Sequence[int] | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """x_{s - length} from x = x_s (B,C,H,W), each image by its own number of reverse steps; s, length (B,) integers.

    All images make their last step together, so that an earlier network call holds only those with more steps to
    make. `normal(rows, left)` draws z for the images `rows` (n,) when `left` steps are left. `gradient`: through every
    call, or only through the last. `counts`: how many images make at least 1, 2, ... steps, where the host knows it;
    else it waits for the device to say so. `first`: x_0 (B,C,H,W) as predicted from x, where the caller has asked.
    """
    end, counts = s - length, longer(length) if counts is None else counts

    def making(steps: int) -> Tensor:
        """The images that make at least so many steps."""
        return (length < steps).to(torch.uint8).argsort(stable=True)[: counts[steps - 1]]

    def ask(j: int) -> Tensor:
        """x_0 (B,C,H,W) as predicted when `j` steps are left, of images that make these."""
        if first is not None and j == len(counts):
            return first
        rows = making(j if first is None else j + 1)
        chosen = None if labels is None else labels[rows]
        other = x.detach() if first is None else first
        return other.index_copy(0, rows, denoiser(x[rows], end[rows] + j, chosen).x0)

    for j in range(len(counts), 0, -1):
        rows = making(j)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (gradient == "chain" or j == 1)):
            x = x.index_copy(0, rows, transitions.move(ask(j)[rows], x[rows], end[rows] + j, normal(rows, j)))
    return x


def longer(length: Tensor) -> tuple[int, ...]:
    """How many of these lengths (B,) are at least 1, 2, ... up to the longest."""
    lengths = length.tolist()
    return tuple(sum(one >= j for one in lengths) for j in range(1, int(max(lengths, default=0)) + 1))
