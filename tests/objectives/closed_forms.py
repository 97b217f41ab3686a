"""What regularisers are expected to be for an affine denoiser on Gaussian data, in float64."""

from collections.abc import Iterator

import numpy as np
import torch

from pipeline_lib.analytic import exact, kit
from pipeline_lib.diffusion.transitions import VARIANCES, Variance
from pipeline_lib.objectives import consistent_dm
from pipeline_lib.objectives.ddpm_reg import Options, time_weights

MEDIAN = 0.6744897501960817  # of |z| for standard normal z


def forward_law(problem: kit.Problem, t: int) -> exact.Normal:
    """q(x_t)."""
    mean, covariance = problem.data.moments()
    alpha_bar = float(problem.path.alpha_bar[t])
    eye = torch.eye(len(mean), dtype=torch.float64)
    return exact.Normal(alpha_bar**0.5 * mean, alpha_bar * covariance + (1 - alpha_bar) * eye)


def rolled_law(affine: kit.Affine, start: exact.Normal, s: int, length: int, variance: Variance) -> exact.Normal:
    """The law of x_{s - length} after `length` reverse steps from `start` at s; the affine denoiser predicts eps."""
    assert affine.kind == "eps"
    steps = {int(step.t): step for step in affine.path.grid(affine.path.timesteps)}
    law, eye = start, torch.eye(len(start.mean), dtype=torch.float64)
    for k in range(s, s - length, -1):
        step, gain, offset = steps[k], affine.gain[k].detach().double(), affine.offset[k].detach().double()
        m = step.c_xt * eye + step.c_x0 * (eye - step.s * gain) / step.a
        shift = -step.c_x0 * step.s * offset / step.a
        law = exact.Normal(m @ law.mean + shift, m @ law.covariance @ m.T + variance(step) * eye)
    return law


def pairs(
    options: Options, affine: kit.Affine, problem: kit.Problem, variance: Variance
) -> Iterator[tuple[float, exact.Normal, exact.Normal]]:
    """Weight in Eq. 15, law of the rolled out and of the forward x_t, for every t and number of steps."""
    timesteps, dimension = problem.path.timesteps, problem.data.dimension
    for t, w in enumerate(time_weights(options.rho, timesteps)):
        most = min(options.bootstrap_length, timesteps - t)
        lengths = range(1, most + 1) if options.rollout == "uniform" else [most]
        for length in lengths:
            start = forward_law(problem, t + length) if options.warm_start else exact.prior(problem.path, dimension)
            yield w / len(lengths), rolled_law(affine, start, t + length, length, variance), forward_law(problem, t)


def regulariser(options: Options, affine: kit.Affine, problem: kit.Problem, variance: Variance) -> float:
    """L_reg of Eq. 15 under the Gaussian kernel of fixed length scale: its U-statistics are unbiased."""
    return sum(w * exact.mmd2(p, q, options.bandwidth) for w, p, q in pairs(options, affine, problem, variance))


def v_bias(options: Options, affine: kit.Affine, problem: kit.Problem, variance: Variance, half: int) -> float:
    """What V-statistics of two halves add to `regulariser`: (1 - E k(x, x')) / n + (1 - E k(y, y')) / n."""

    def within(law: exact.Normal) -> float:
        spread = torch.eye(len(law.mean), dtype=torch.float64) + 2 * law.covariance / options.bandwidth**2
        return float(torch.linalg.det(spread) ** -0.5)

    return sum(w * (2 - within(p) - within(q)) / half for w, p, q in pairs(options, affine, problem, variance))


def predicted_x0(affine: kit.Affine, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted x_0 at t as gain (D, D) and offset (D,)."""
    gain, offset = affine.gain[t].detach().double(), affine.offset[t].detach().double()
    a, s = float(affine.path.alpha_bar[t] ** 0.5), float((1 - affine.path.alpha_bar[t]) ** 0.5)
    eye = torch.eye(len(offset), dtype=torch.float64)
    return {
        "x0": (gain, offset),
        "eps": ((eye - s * gain) / a, -s * offset / a),
        "v": (a * eye - s * gain, -s * offset),
    }[affine.kind]


def inconsistency(
    options: consistent_dm.Options, affine: kit.Affine, problem: kit.Problem, t: int
) -> tuple[float, float]:
    """E |E[D(x_t', t') | x_t] - D(x_t, t)|^2 / D over q(x_t), and the mean variance of D(x_t', t') given x_t."""
    steps = {int(step.t): step for step in problem.path.grid(problem.path.timesteps)}
    eye = torch.eye(problem.data.dimension, dtype=torch.float64)
    gain, offset, spread = eye, torch.zeros(len(eye), dtype=torch.float64), torch.zeros_like(eye)  # of x_t' given x_t
    end = max(t - options.chain_steps, 1)
    for k in range(t, end, -1):
        step, (inner, shift) = steps[k], predicted_x0(affine, k)
        m = step.c_xt * eye + step.c_x0 * inner
        gain, offset = m @ gain, m @ offset + step.c_x0 * shift
        spread = m @ spread @ m.T + VARIANCES[options.variance](step) * eye
    (after, after_shift), (before, before_shift) = predicted_x0(affine, end), predicted_x0(affine, t)
    law = forward_law(problem, t)
    slope, constant = after @ gain - before, after @ offset + after_shift - before_shift
    size = (slope @ law.covariance @ slope.T).trace() + (slope @ law.mean + constant).square().sum()
    weight = 1.0 if options.consistency_weighting == "none" else float(problem.path.alpha_bar[t])
    return weight * float(size) / len(eye), weight * float((after @ spread @ after.T).trace()) / len(eye)


class Line:
    """One-dimensional data N(0, variance) and a denoiser that predicts eps as `slope` times the exact one, at all t.

    All t at once, so that T = 1000 takes milliseconds. `bandwidth` None: the exact median of distances at each t.
    """

    def __init__(self, problem: kit.Problem, length: int, rho: float, bandwidth: float | None) -> None:
        path = problem.path
        self.timesteps, self.length, self.rho, self.bandwidth = path.timesteps, length, rho, bandwidth
        self.steps = [None, *sorted(path.grid(path.timesteps), key=lambda step: step.t)]
        self.q = np.array([float(forward_law(problem, t).covariance) for t in range(path.timesteps + 1)])

    def regulariser(self, slope: float, variance: Variance, half: int | None = None) -> float:
        """L_reg with U-statistics, or with V-statistics of `half` images."""
        steps = self.steps[1:]
        gain = [
            step.c_xt + step.c_x0 * (1 - slope * step.s**2 / q) / step.a
            for step, q in zip(steps, self.q[1:], strict=True)
        ]
        m, noise = np.array([np.nan, *gain]), np.array([np.nan, *(variance(step) for step in steps)])
        t, total = np.arange(self.timesteps), 0.0
        most = np.minimum(self.length, self.timesteps - t)
        for length in range(1, self.length + 1):
            fits = t[most >= length]
            p, q = self.q[fits + length], self.q[fits]
            for k in range(length, 0, -1):
                p = m[fits + k] ** 2 * p + noise[fits + k]
            scale = 2 * MEDIAN**2 * q if self.bandwidth is None else self.bandwidth**2
            xx, xy, yy = ((1 + spread / scale) ** -0.5 for spread in (2 * p, p + q, 2 * q))
            value = xx - 2 * xy + yy + (0 if half is None else (2 - xx - yy) / half)
            total += float((time_weights(self.rho, self.timesteps)[fits] / most[fits] * value).sum())
        return total
