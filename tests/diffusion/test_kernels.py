"""Kernels against direct loops, and the traps of the Gram form."""

from math import exp, sqrt

import pytest
import torch

from pipeline_lib.diffusion.kernels import KERNELS, laplace, squared_distances


def points(n: int, d: int, seed: int, **options: object) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("laplace", lambda d, scale: exp(-d / scale)),
        ("gaussian", lambda d, scale: exp(-(d**2) / (2 * scale**2))),
        ("rational-quadratic", lambda d, scale: 1 / (1 + d**2 / (2 * scale**2))),
    ],
)
def test_values_equal_a_double_loop_in_float64(name, formula):
    x, y = points(7, 50, 0), points(5, 50, 1)
    got = KERNELS[name](squared_distances(x, y), 9.0)
    for i in range(7):
        for j in range(5):
            d = sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x[i], y[j], strict=True)))
            assert float(got[i, j]) == pytest.approx(formula(d, 9.0), rel=2e-6)


def test_distances_survive_a_large_common_offset():
    x, y = points(20, 3072, 0), points(30, 3072, 1)
    exact = torch.cdist(x.double(), y.double()) ** 2
    near, far = squared_distances(x, y), squared_distances(x + 100, y + 100)
    assert float((near / exact - 1).abs().max()) < 2e-6
    assert float((far / exact - 1).abs().max()) < 2e-5  # without the shift of origin it is 2e-3


def test_distances_never_fall_below_zero_and_are_zero_to_itself():
    x = points(1, 3072, 0).expand(40, -1) + 1e-4 * points(40, 3072, 1)
    assert float(squared_distances(x, x.clone()).min()) >= 0
    assert bool((squared_distances(x).diagonal() == 0).all())


def test_gradients_are_finite_at_equal_points_and_right_elsewhere():
    x = torch.cat((points(3, 4, 0), points(1, 4, 9).expand(2, -1))).requires_grad_()  # the last two are equal
    laplace(squared_distances(x), 2.0).sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    reference = x.detach().double().requires_grad_()
    apart = [(i, j) for i in range(5) for j in range(5) if i != j and {i, j} != {3, 4}]
    sum(torch.exp(-(reference[i] - reference[j]).norm() / 2) for i, j in apart).backward()
    assert torch.allclose(x.grad.double(), reference.grad, atol=1e-5)


def test_groups_are_leading_dimensions():
    x, y = points(3 * 4, 6, 0).reshape(3, 4, 6), points(3 * 5, 6, 1).reshape(3, 5, 6)
    together, alone = squared_distances(x, y), torch.stack([squared_distances(a, b) for a, b in zip(x, y, strict=True)])
    assert together.shape == (3, 4, 5)
    assert torch.allclose(together, alone, atol=1e-5)
    assert bool((squared_distances(x).diagonal(dim1=-2, dim2=-1) == 0).all())


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_autocast_and_low_matmul_precision_do_not_reach_the_distances(precision):
    x = points(50, 3072, 0)
    exact = torch.cdist(x.double(), x.double()) ** 2
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = squared_distances(x)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert got.dtype == torch.float32
    assert float((got - exact).abs().max()) < 0.02  # of 6144; in bfloat16 it is off by 1


def test_bfloat16_inputs_are_summed_in_float32():
    x = points(10, 3072, 0, dtype=torch.bfloat16)
    exact = torch.cdist(x.double(), x.double()) ** 2
    assert float((squared_distances(x) - exact).abs().max()) < 0.02
