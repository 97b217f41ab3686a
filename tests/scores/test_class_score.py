"""The inception score against torch-fidelity and closed forms."""

import numpy as np
import pytest
import torch

from pipeline_lib.scores import _torchvision, class_score


def test_equals_torch_fidelity() -> None:
    _torchvision.ensure()
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    logits = 2 * torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)[KEY_METRIC_ISC_MEAN]
    assert class_score.estimate(logits).value == pytest.approx(theirs, rel=1e-9)


def test_it_is_the_number_of_classes_at_best_and_one_at_worst() -> None:
    sure = 100 * torch.eye(10).repeat(10, 1)
    assert class_score.estimate(sure, 2).value == pytest.approx(10, rel=1e-9)
    assert class_score.estimate(torch.zeros(40, 10)).value == pytest.approx(1)


def test_its_standard_error_is_that_of_new_draws() -> None:
    random = torch.Generator().manual_seed(0)
    found = [class_score.estimate(2 * torch.randn(500, 5, generator=random)) for _ in range(150)]
    assert np.mean([one.se for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.15)


def test_fewer_samples_than_parts_have_none() -> None:
    with pytest.raises(ValueError, match="9 samples cannot be split into 10 parts"):
        class_score.estimate(torch.zeros(9, 3))
