"""MMD^2 against its closed form for Gaussians, and how its two statistics differ."""

from math import exp

import pytest
import torch

from pipeline_lib.diffusion.kernels import gaussian, squared_distances
from pipeline_lib.diffusion.mmd import mmd2


def mean_kernel(shift2: float, variance: float, d: int, scale: float) -> float:
    """E exp(-|z|^2 / 2 l^2) for z ~ N(shift, variance I) in d dimensions."""
    ratio = scale**2 / (scale**2 + variance)
    return ratio ** (d / 2) * exp(-shift2 / (2 * (scale**2 + variance)))


def measured(n: int, m: int, d: int, shift: float, std: float, scale: float, seed: int, statistic: str) -> float:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=rng), shift + std * torch.randn(m, d, generator=rng)
    distances = squared_distances(x), squared_distances(x, y), squared_distances(y)
    return float(mmd2(*(gaussian(d, scale) for d in distances), statistic))


@pytest.mark.parametrize(("shift", "std"), [(0.0, 1.0), (0.3, 1.0), (0.0, 1.4), (0.2, 0.8)])
def test_u_statistic_has_the_closed_form_of_two_gaussians_as_its_mean(shift, std):
    d, scale = 5, 3.0
    truth = (
        mean_kernel(0, 2, d, scale)
        - 2 * mean_kernel(d * shift**2, 1 + std**2, d, scale)
        + mean_kernel(0, 2 * std**2, d, scale)
    )
    found = torch.tensor([measured(60, 90, d, shift, std, scale, seed, "u") for seed in range(150)])
    assert abs(float(found.mean()) - truth) < 4 * float(found.std()) / len(found) ** 0.5
    assert float(found.std()) < 0.02  # so that the line above says something: the effects are up to 0.05


def test_v_exceeds_u_by_the_derived_bias():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=rng), torch.randn(20, 4, generator=rng)
    xx, xy, yy = (gaussian(d, 2.0) for d in (squared_distances(x), squared_distances(x, y), squared_distances(y)))
    within = [(float(k.double().sum()) - len(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    bias = (1 - within[0]) / 30 + (1 - within[1]) / 20
    assert float(mmd2(xx, xy, yy, "v") - mmd2(xx, xy, yy, "u")) == pytest.approx(bias, rel=1e-6)


def test_a_set_with_itself():
    """V is 0; U is minus twice the bias it leaves out, since the cross term keeps the pairs of equal points."""
    x = torch.randn(25, 3, generator=torch.Generator().manual_seed(0))
    k = gaussian(squared_distances(x), 1.5)
    mean = (float(k.double().sum()) - 25) / (25 * 24)
    assert float(mmd2(k, k, k, "v")) == pytest.approx(0, abs=1e-12)
    assert float(mmd2(k, k, k, "u")) == pytest.approx(-2 * (1 - mean) / 25, rel=1e-6)


def test_groups_are_averaged_apart_and_gradients_flow():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 8, 3, generator=rng), torch.randn(2, 6, 3, generator=rng) + 1
    x.requires_grad_()
    k = [gaussian(d, 1.5) for d in (squared_distances(x), squared_distances(x, y), squared_distances(y))]
    together = mmd2(*k)
    alone = torch.stack([mmd2(*(m[g] for m in k)) for g in range(2)])
    assert torch.allclose(together, alone)
    together.sum().backward()
    assert bool((x.grad.sum((1, 2)) < 0).all())  # descending moves x up, to the mean of y
    step = (x - 0.5 * x.grad / x.grad.norm()).detach()
    moved = mmd2(
        *(gaussian(d, 1.5) for d in (squared_distances(step), squared_distances(step, y), squared_distances(y)))
    )
    assert bool((moved < together).all())
