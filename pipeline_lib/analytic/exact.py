"""Exact errors of a linear denoiser on Gaussian data, in float64.

A denoiser that predicts x_0 as A_t x + b_t makes every x_t of the ancestral chain Gaussian, so p_theta(x_t), every
Kullback-Leibler divergence between it and q(x_t), and MMD^2 under the Gaussian kernel are known in closed form.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.analytic.mixtures import Mixture
from pipeline_lib.diffusion.grid import Grid, Step

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
    of x_t and x_u while sampling (p) and in training (q)."""

    step: Step
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


def fixed_variance(kind: str, dimension: int) -> Covariance:
    """The reverse covariances of DDPM: 'fixed-small' (of the posterior) or 'fixed-large' (beta_t)."""
    eye = torch.eye(dimension, dtype=torch.float64)

    def at(step: Step) -> Tensor:
        return (step.posterior_variance if kind == "fixed-small" else step.forward_variance) * eye

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


def chain(data: Mixture, grid: Grid, denoiser: Linear, variance: Covariance) -> Iterator[Link]:
    """Every step of the ancestral chain from N(0, I). The last step adds no noise unless `variance` is the oracle's."""
    mean, covariance = data.moments()
    eye = torch.eye(len(mean), dtype=torch.float64)
    exact, exact_noise = exact_denoiser(data), oracle_variance(data)

    def q(a: float, s: float) -> Normal:
        return Normal(a * mean, a**2 * covariance + s**2 * eye)

    p = Normal(torch.zeros_like(mean), eye)
    for step in grid:
        (gain, offset), (gain_exact, offset_exact) = denoiser(step), exact(step)
        m, v = step.c_xt * eye + step.c_x0 * gain, step.c_x0 * offset
        noise = variance(step)
        after = Normal(m @ p.mean + v, m @ p.covariance @ m.T + noise)
        yield Link(
            step,
            m,
            v,
            noise,
            step.c_xt * eye + step.c_x0 * gain_exact,
            step.c_x0 * offset_exact,
            exact_noise(step),
            p,
            q(step.a, step.s),
            after,
            q(step.a_next, step.s_next),
        )
        p = after


def kl(p: Normal, q: Normal) -> float:
    """KL(p || q) in nats; infinite where p is degenerate and q is not."""
    return _kl_of_gap(p.covariance, q.covariance, _outer(p.mean - q.mean))


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
