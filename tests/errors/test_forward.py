"""Forward samples: without replacement, by seed, the same for every t."""

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Diffusion
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.errors.forward import BANDWIDTHS, MEASURED, ForwardSamples
from pipeline_lib.exits import BadConfig


def test_images_are_drawn_without_replacement(dataset):
    data = dataset(np.arange(50, dtype=np.uint8).repeat(16).reshape(50, 1, 4, 4))
    x0 = ForwardSamples(data, 50, 0, MEASURED).x0
    assert sorted(x0[:, 0, 0, 0].tolist()) == sorted((np.arange(50, dtype=np.float32) / 127.5 - 1).tolist())


def test_samples_depend_on_seed_and_purpose_alone(gaussian_data):
    first, same = (ForwardSamples(gaussian_data, 40, 1, MEASURED).at(0.6, 0.8) for _ in range(2))
    fewer = ForwardSamples(gaussian_data, 10, 1, MEASURED).at(0.6, 0.8)
    assert torch.equal(first, same)
    assert torch.equal(first[:10], fewer)
    for other in ((2, MEASURED), (1, BANDWIDTHS)):
        assert not torch.equal(first, ForwardSamples(gaussian_data, 40, *other).at(0.6, 0.8))


def test_noise_is_standard_normal_and_shares_no_counter_with_the_choice_of_images(gaussian_data):
    forward = ForwardSamples(gaussian_data, 600, 0, MEASURED)
    of_choice = Noise(0).normal(Stream.FORWARD, torch.arange(600), MEASURED, gaussian_data.shape)
    assert not torch.equal(forward.eps, of_choice)
    assert abs(float(forward.eps.mean())) < 4 / forward.eps.numel() ** 0.5
    assert float(forward.eps.var()) == pytest.approx(1, abs=4 * (2 / forward.eps.numel()) ** 0.5)


def test_more_samples_than_images_are_refused(gaussian_data):
    with pytest.raises(BadConfig, match=r"601 forward samples .* 600 training images"):
        ForwardSamples(gaussian_data, 601, 0, MEASURED)


def test_noise_is_that_of_the_path(gaussian_data: Prepared) -> None:
    """Normal on Gaussian paths, bit for bit; of PFGM++ on its own, from the same images."""
    plain = ForwardSamples(gaussian_data, 40, 1, MEASURED)
    drawn = {}
    for name in ("edm", "pfgm"):
        path = paths.build(Diffusion(path=name, prediction="edm", extra_dimensions=3))
        drawn[name] = ForwardSamples(gaussian_data, 40, 1, MEASURED, path=path)
        assert torch.equal(drawn[name].x0, plain.x0)
    assert torch.equal(drawn["edm"].eps, plain.eps)
    ratio = (drawn["pfgm"].eps / plain.eps).flatten(1)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4)
    assert float(ratio[:, 0].std()) > 0.2
