"""The kernel distance against torch-fidelity's KID, the loop over pairs, and its own spread."""

import numpy as np
import pytest
import torch

from pipeline_lib.scores import _torchvision, kernel_distance


def drawn(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def estimate(x: torch.Tensor, y: torch.Tensor):
    return kernel_distance.estimate(x, kernel_distance.within(x), y)


def test_equals_torch_fidelity_on_one_subset_of_all() -> None:
    _torchvision.ensure()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    x, y = drawn(200, 0), drawn(200, 1, 0.4)
    theirs = kid_features_to_metric(y, x, kid_subsets=1, kid_subset_size=200, verbose=False)[KEY_METRIC_KID_MEAN]
    assert estimate(x, y).value == pytest.approx(theirs, rel=1e-5)


def test_unequal_sizes_are_the_loop_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_distance, "BLOCK", 64)
    x, y = drawn(30, 0), drawn(17, 1, 0.4)
    k = lambda a, b: (float(a.double() @ b.double()) / 6 + 1) ** 3  # noqa: E731
    within = [np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    across = np.mean([k(a, b) for a in x for b in y])
    assert estimate(x, y).value == pytest.approx(sum(within) - 2 * across, rel=1e-5)


def test_it_is_unbiased_and_its_standard_error_that_of_new_draws() -> None:
    reference = drawn(2000, 99)
    within = kernel_distance.within(reference)
    equal = [kernel_distance.estimate(reference, within, drawn(80, seed)).value for seed in range(200)]
    assert abs(np.mean(equal)) < 4 * np.std(equal) / 200**0.5 + 0.005  # the reference is fixed: its own error stays
    apart = [kernel_distance.estimate(reference, within, drawn(80, seed, 0.5)) for seed in range(200)]
    assert np.mean([one.se for one in apart]) == pytest.approx(np.std([one.value for one in apart]), rel=0.15)


def test_two_samples_are_the_least() -> None:
    with pytest.raises(ValueError, match="two samples"):
        kernel_distance.within(drawn(1, 0))
    with pytest.raises(ValueError, match="two samples"):
        estimate(drawn(5, 0), drawn(1, 0))
