"""Exact errors of a linear denoiser on Gaussian data, in float64.

A denoiser that predicts x_0 as A_t x + b_t makes every x_t of the ancestral chain Gaussian, so p_theta(x_t), every
Kullback-Leibler divergence between it and q(x_t), and MMD^2 under the Gaussian kernel are known in closed form.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import e, inf, log, pi

import torch
from torch import Tensor

from pipeline_lib.analytic.mixtures import Mixture
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.paths import GaussianPath

Linear = Callable[[Step], tuple[Tensor, Tensor]]
Covariance = Callable[[Step], Tensor]


@dataclass(frozen=True)
class Normal:
    """N(mean (D,), covariance (D, D)), float64."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Link:
    """One step of the chain: p_theta(x_u | x_t) = N(m x_t + v, noise), the exact q(x_u | x_t) likewise, and the laws
    of x_t and x_u while sampling (p) and in training (q). The denoiser predicts x_0 as gain x_t + offset."""

    step: Step
    gain: Tensor
    offset: Tensor
    m: Tensor
    v: Tensor
    noise: Tensor
    m_exact: Tensor
    v_exact: Tensor
    noise_exact: Tensor
    p_t: Normal
    q_t: Normal
    p_u: Normal
    q_u: Normal


def exact_denoiser(data: Mixture) -> Linear:
    """A_t and b_t of the posterior mean of Gaussian data (one component)."""
    mean, covariance = data.moments()

    def at(step: Step) -> tuple[Tensor, Tensor]:
        marginal = step.a**2 * covariance + step.s**2 * torch.eye(len(mean), dtype=torch.float64)
        gain = step.a * torch.linalg.solve(marginal, covariance).T
        return gain, mean - step.a * gain @ mean

    return at


def erring(inside: Linear, scale: float = 1.0, bias: float = 0.0) -> Linear:
    """What `oracle.Erring` is to a denoiser: eps scaled and shifted, so x_0 = (x - s (scale eps + bias)) / a."""

    def at(step: Step) -> tuple[Tensor, Tensor]:
        gain, offset = inside(step)
        eye = torch.eye(len(gain), dtype=torch.float64)
        return scale * gain + (1 - scale) / step.a * eye, scale * offset - step.s * bias / step.a

    return at


def fixed_variance(kind: str, dimension: int) -> Covariance:
    """The reverse covariances of DDPM: 'fixed-small' (of the posterior) or 'fixed-large' (beta_t); none at the end."""
    eye = torch.eye(dimension, dtype=torch.float64)

    def at(step: Step) -> Tensor:
        large = kind == "fixed-large" and not step.is_last
        return (step.forward_variance if large else step.posterior_variance) * eye

    return at


def oracle_variance(data: Mixture) -> Covariance:
    """The covariance of q(x_u | x_t) for Gaussian data; it does not depend on x_t."""
    _, covariance = data.moments()
    eye = torch.eye(len(covariance), dtype=torch.float64)

    def at(step: Step) -> Tensor:
        gain, _ = exact_denoiser(data)(step)
        left = covariance - step.a * gain @ covariance
        return step.posterior_variance * eye + step.c_x0**2 * left

    return at


def chain(data: Mixture, grid: Grid, denoiser: Linear, variance: Covariance, start: Normal) -> Iterator[Link]:
    """Every step of the ancestral chain whose x at the top of the grid is drawn from `start`."""
    eye = torch.eye(data.dimension, dtype=torch.float64)
    exact, exact_noise = exact_denoiser(data), oracle_variance(data)
    p = start
    for step in grid:
        (gain, offset), (gain_exact, offset_exact) = denoiser(step), exact(step)
        m, v = step.c_xt * eye + step.c_x0 * gain, step.c_x0 * offset
        noise = variance(step)
        after = Normal(m @ p.mean + v, m @ p.covariance @ m.T + noise)
        yield Link(
            step,
            gain,
            offset,
            m,
            v,
            noise,
            step.c_xt * eye + step.c_x0 * gain_exact,
            step.c_x0 * offset_exact,
            exact_noise(step),
            p,
            marginal(data, step.a, step.s),
            after,
            marginal(data, step.a_next, step.s_next),
        )
        p = after


def prior(path: GaussianPath, dimension: int) -> Normal:
    """The law that sampling starts from: N(0, prior_std^2 I)."""
    return Normal(
        torch.zeros(dimension, dtype=torch.float64), path.prior_std**2 * torch.eye(dimension, dtype=torch.float64)
    )


def marginal(data: Mixture, a: float, s: float) -> Normal:
    """The law of a x_0 + s eps for Gaussian data."""
    mean, covariance = data.moments()
    return Normal(a * mean, a**2 * covariance + s**2 * torch.eye(len(mean), dtype=torch.float64))


def kl(p: Normal, q: Normal) -> float:
    """KL(p || q) in nats; infinite where one of them is degenerate."""
    return _kl_of_gap(p.covariance, q.covariance, _outer(p.mean - q.mean))


def entropy(p: Normal) -> float:
    """Differential entropy in nats."""
    return float(0.5 * (torch.linalg.slogdet(p.covariance)[1] + len(p.mean) * log(2 * pi * e)))


def eps_law(link: Link, law: Normal) -> Normal:
    """The law of the predicted eps = (x_t - a x_0) / s for x_t from `law`."""
    step = link.step
    map_ = (torch.eye(len(law.mean), dtype=torch.float64) - step.a * link.gain) / step.s
    return Normal(map_ @ law.mean - step.a / step.s * link.offset, map_ @ law.covariance @ map_.T)


def rms(law: Normal) -> float:
    """Root of the mean squared norm. It stands for the mean norm of eps that Ning et al. (2024) plot: unlike that it
    has a closed form, and it is larger by a share of order 1 / (4 D)."""
    return float((law.covariance.trace() + law.mean.square().sum()).sqrt())


def deviations(data: Mixture, links: Sequence[Link]) -> Iterator[tuple[Normal, Normal]]:
    """The law of x_u - a_u x_0 after each step: of the whole chain, and of one step from the true x_t.

    The chain starts from the noised x_0 at the top of the grid (Ning et al., 2024, the algorithm for delta_t).
    """
    mean, covariance = data.moments()
    eye = torch.eye(len(mean), dtype=torch.float64)

    def relative(m: Tensor, v: Tensor, noise: Tensor, a: float) -> Normal:
        return Normal((m - a * eye) @ mean + v, (m - a * eye) @ covariance @ (m - a * eye).T + noise)

    first = links[0].step
    m, v, noise = first.a * eye, torch.zeros_like(mean), first.s**2 * eye
    for link in links:
        step = link.step
        m, v, noise = link.m @ m, link.m @ v + link.v, link.m @ noise @ link.m.T + link.noise
        single = link.m @ link.m.T * step.s**2 + link.noise
        yield relative(m, v, noise, step.a_next), relative(step.a * link.m, link.v, single, step.a_next)


def stretch(matrix: Tensor, before: Normal, after: Normal) -> float:
    """The largest factor by which `matrix` stretches an error of its input, in units of the laws before and after."""
    root_before, root_after = (torch.linalg.cholesky(law.covariance) for law in (before, after))
    whitened = torch.linalg.solve_triangular(root_after, matrix @ root_before, upper=False)
    return float(torch.linalg.matrix_norm(whitened, 2))


def spread_gap(law: Normal, s: float) -> float:
    """Mean over pixels of the standard deviation of x_u - a_u x_0, less s; its square is delta_t (Ning et al.)."""
    return float(law.covariance.diagonal().sqrt().mean()) - s


def cumulative_error(link: Link) -> float:
    """E_t = KL(p_theta(x_u) || q(x_u)) after the step (Li and van der Schaar, 2024, Eq. 10)."""
    return kl(link.p_u, link.q_u)


def modular_error(link: Link, direction: str = "p||q", under: str = "p") -> float:
    """E_t^mod: the expected KL between the reverse transitions (Eq. 7), in its readings.

    `direction` is 'p||q' for KL(p_theta || q) or 'q||p'; `under` says whether x_t is drawn while sampling ('p') or in
    training ('q').
    """
    law = link.p_t if under == "p" else link.q_t
    difference, offset = link.m - link.m_exact, link.v - link.v_exact
    gap = difference @ law.covariance @ difference.T + _outer(difference @ law.mean + offset)
    first, second = (link.noise, link.noise_exact) if direction == "p||q" else (link.noise_exact, link.noise)
    return _kl_of_gap(first, second, gap)


def backward_gap(link: Link) -> float:
    """E over p_theta(x_u) of KL(p_theta(x_t | x_u) || q(x_t | x_u)): by the chain rule E_t = E_{t+1} + E_t^mod - it."""
    p_gain, p_offset, p_noise = _reversed(link.p_t, link.m, link.v, link.noise)
    q_gain, q_offset, q_noise = _reversed(link.q_t, link.m_exact, link.v_exact, link.noise_exact)
    difference, offset = p_gain - q_gain, p_offset - q_offset
    gap = difference @ link.p_u.covariance @ difference.T + _outer(difference @ link.p_u.mean + offset)
    return _kl_of_gap(p_noise, q_noise, gap)


def mmd2(p: Normal, q: Normal, length_scale: float) -> float:
    """MMD^2 under exp(-|x - y|^2 / (2 l^2))."""

    def expected(one: Normal, other: Normal) -> Tensor:
        spread = one.covariance + other.covariance
        scaled = torch.eye(len(spread), dtype=torch.float64) + spread / length_scale**2
        gap = one.mean - other.mean
        exponent = gap @ torch.linalg.solve(scaled, gap) / length_scale**2
        return torch.linalg.det(scaled) ** -0.5 * torch.exp(-0.5 * exponent)

    return float(expected(p, p) + expected(q, q) - 2 * expected(p, q))


def _kl_of_gap(first: Tensor, second: Tensor, gap: Tensor) -> float:
    """KL between N(., first) and N(., second) whose means differ with second moment `gap` (D, D)."""
    if not all(bool(torch.linalg.slogdet(one)[0] > 0) for one in (first, second)):
        return inf  # a law without a density
    ratio = torch.linalg.solve(second, first + gap)
    log_ratio = torch.linalg.slogdet(second)[1] - torch.linalg.slogdet(first)[1]
    return float(0.5 * (ratio.trace() - len(first) + log_ratio))


def _reversed(law: Normal, m: Tensor, v: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_t given x_u, for x_t from `law` and x_u = m x_t + v + noise: gain, offset, covariance."""
    cross = law.covariance @ m.T
    gain = torch.linalg.solve(m @ cross + noise, cross.T).T
    return gain, law.mean - gain @ (m @ law.mean + v), law.covariance - gain @ cross.T


def _outer(vector: Tensor) -> Tensor:
    return vector[:, None] * vector[None]
