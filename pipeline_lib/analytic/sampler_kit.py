"""Known answers for any sampler: on Gaussian data an affine denoiser makes the law of every x_t exact.

A sampler is right when x_t has that law at every place of the grid, when it calls the network where it says, and when
the grid visits the times that it says. A new sampler brings two things: its affine `Update`, and the times at which it
calls the network where these are not once per step. Nothing here assumes a variance-preserving path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.analytic.exact import Linear, Normal
from pipeline_lib.config.spacings import Spacing
from pipeline_lib.diffusion.denoiser import Denoising, Prediction
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import GaussianPath
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.samplers import Draw, Sampler
from pipeline_lib.samplers._stage import Counted

Affine = tuple[Tensor, Tensor, Tensor]
Update = Callable[[Step, Linear], Affine]
"""x_u = matrix x_t + offset + N(0, covariance): (D, D), (D,), (D, D) of a step, float64. The denoiser is given too, not
only its value at the step, since a sampler may call it at other times (`dataclasses.replace` the step's t, a and s)."""

Calls = Callable[[Grid], Sequence[float]]
"""The times at which a sampler calls the network, in order."""


@dataclass(frozen=True)
class Trial:
    """What a sampler did: the x_t (N, D) at every place of the grid (float64), the steps that the observer saw, the
    times of its network calls, and the number of images that the network has seen."""

    grid: Grid
    x: list[Tensor]
    steps: list[Step]
    calls: list[float]
    images: int


def laws(start: Normal, grid: Grid, denoiser: Linear, update: Update) -> list[Normal]:
    """The law of x_t at every place of the grid, 0 to len(grid), where x at its top is drawn from `start`."""
    found = [start]
    for step in grid:
        matrix, offset, noise = update(step, denoiser)
        p = found[-1]
        found.append(Normal(matrix @ p.mean + offset, matrix @ p.covariance @ matrix.T + noise))
    return found


def trial(
    sampler: Sampler, options: Any, denoiser: Denoising, grid: Grid, dimension: int, count: int, seed: int = 0
) -> Trial:
    """Let `count` chains of images (D, 1, 1) run along the grid."""
    calls, steps, seen = [], [], []

    class Watched:
        path = denoiser.path

        def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
            calls.append(float(torch.as_tensor(t).flatten()[0]))
            return denoiser(x, t, labels)

    def observe(step: Step, x: Tensor, prediction: Prediction) -> None:
        steps.append(step)
        seen.append(x.flatten(1).double())

    noise, index, shape = Noise(seed), torch.arange(count), (dimension, 1, 1)
    x = denoiser.path.prior_std * denoiser.path.eps(noise, Stream.PRIOR, index, 0, shape)
    counted = Counted(Watched(), count)
    with torch.no_grad():
        end = sampler(counted, grid, x, Draw(noise, index), options, observe=observe)
    return Trial(grid, [*seen, end.flatten(1).double()], steps, calls, counted.images)


def moment_scores(done: Trial, expected: Sequence[Normal]) -> Tensor:
    """Mean and covariance of x_t minus those expected, in standard errors: (places, D + D (D + 1) / 2), each N(0, 1).

    Of N Gaussian samples the mean has variance S_ii / N, and the covariance (S_ii S_jj + S_ij^2) / (N - 1) (Wishart).
    """
    scores = []
    for x, law in zip(done.x, expected, strict=True):
        variance = law.covariance.diagonal()
        spread = ((torch.outer(variance, variance) + law.covariance**2) / (len(x) - 1)).sqrt()
        upper = torch.ones_like(spread, dtype=torch.bool).triu()
        of_mean = (x.mean(0) - law.mean) / (variance / len(x)).sqrt()
        of_covariance = ((torch.cov(x.T) - law.covariance) / spread)[upper]
        scores.append(torch.cat((of_mean, of_covariance)))
    return torch.stack(scores)


def once_per_step(grid: Grid) -> Sequence[float]:
    """The calls of a sampler of first order: one at the start of every step."""
    return grid.times[:-1]


def visit_faults(done: Trial, calls: Calls = once_per_step) -> list[str]:
    """What the sampler did not do as its grid and `calls` declare, a sentence each; empty where all is well."""
    declared = torch.tensor(calls(done.grid), dtype=torch.float32).tolist()  # as a network is given them
    seen, count = [step.t for step in done.steps], len(done.x[-1])
    faults = []
    if done.calls != declared:
        faults.append(f"the network was called at {done.calls}, not at {declared}")
    if done.images != count * len(declared):
        faults.append(f"the network saw {done.images / count:g} images per chain, not {len(declared)}")
    if seen != list(done.grid.times[:-1]):
        faults.append(f"the observer saw {seen}, not {list(done.grid.times[:-1])}")
    if any(step.t_next != after.t for step, after in pairwise(done.steps)):
        faults.append("a step does not end where the next one starts")
    return faults


def grid_faults(path: GaussianPath, nfe: int, spacing: Spacing) -> list[str]:
    """What the path's grid does not visit as it says, a sentence each; empty where all is well.

    Where the path has `timesteps` (variance-preserving, t in {1..T}), `uniform` must start at T and call the network
    last at 1 (one call alone is at T), `leading` end at 1, `trailing` start at T, and `quadratic` take even steps in
    the root of t - 1, to rounding, from 0.8 T to 1.
    """
    grid = path.grid(nfe, spacing)
    times, faults = list(grid.times), []
    if len(grid) != nfe:
        faults.append(f"the grid has {len(grid)} steps, not {nfe}")
    if any(after >= before for before, after in pairwise(times)) or times[-1] != 0:
        faults.append(f"the times do not decrease to 0: {times}")
    if unknown := [t for t, a, s in zip(times, grid.a, grid.s, strict=True) if not _knows(path, t, a, s)]:
        faults.append(f"the path does not have these times, or not with the grid's a and s: {unknown}")
    total = getattr(path, "timesteps", None)
    if total and (spacing == "trailing" or spacing == "uniform") and times[0] != total:
        faults.append(f"the first call is at {times[0]:g}, not at T = {total}")
    if total and (spacing in ("leading", "quadratic") or (spacing == "uniform" and nfe > 1)) and times[-2] != 1:
        faults.append(f"the last call is at {times[-2]:g}, not at 1")
    if total and spacing == "quadratic" and (late := _off_the_squares(times[:-1], 0.8 * total)):
        faults.append(f"the calls at {late} are not where even steps in the root of t - 1 lead")
    return faults


def _off_the_squares(times: Sequence[float], first: float) -> list[float]:
    """Those that are a step or more away from where they belong: they are rounded down."""
    last = len(times) - 1
    due = [1 + first * ((last - i) / last) ** 2 for i in range(len(times))]
    return [t for t, exact in zip(times, due, strict=True) if not -1e-6 <= exact - t < 1 + 1e-6]


def _knows(path: GaussianPath, t: float, a: float, s: float) -> bool:
    """Whether t is a time of the path, with these coefficients to float32."""
    total = getattr(path, "timesteps", None)
    if total and not (t == round(t) and 0 <= t <= total):
        return False
    found = torch.stack(path.coefficients(torch.tensor([t])))[:, 0].double()
    return torch.allclose(found, torch.tensor([a, s], dtype=torch.float64), rtol=1e-6, atol=1e-12)
