"""Measures on known numbers: tests of normality, norms against t, and configurations that cannot be."""

import math

import numpy as np
import pytest
import torch

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Anatomy, Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.errors.anatomy import normality
from pipeline_lib.errors.anatomy.modular_error import divergence
from pipeline_lib.errors.exposure import correlation
from pipeline_lib.exits import BadConfig

PIXELS = 300


def test_the_test_of_normality_has_its_level_and_sees_heavy_tails() -> None:
    rng, options = np.random.default_rng(0), normality.Options(pixels=PIXELS)
    gaussian = rng.normal(size=(250, PIXELS)) * rng.uniform(0.1, 9, PIXELS)
    level = normality.rejected(gaussian, options)
    assert len(level) == 5
    assert level.mean() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / (5 * PIXELS)) ** 0.5)
    assert normality.rejected(rng.standard_t(1.5, size=(250, PIXELS)), options).mean() > 0.95


def test_pixels_without_error_are_not_tested() -> None:
    errors = np.random.default_rng(0).standard_t(1, size=(100, 4))
    errors[:, [0, 2]] = 0.25
    assert normality.rejected(errors, normality.Options()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("family", "freedom"), [("edm", None), ("pfgm", 16), ("pfgm", 4096)])
def test_norms_follow_the_noise_level_as_closely_as_the_law_of_the_noise_says(family: str, freedom: int | None) -> None:
    """Of data at 0: ln |x| = ln sigma + ln |eps|, whose variance is a quarter of trigammas of half the dimensions."""
    size, chains = 64, 4000
    path = paths.build(Diffusion(path=family, prediction="edm", **({"extra_dimensions": freedom} if freedom else {})))
    eps = path.eps(Noise(0), Stream.FORWARD, torch.arange(chains), 0, (1, 8, 8))
    clock = torch.linspace(-1, 1, 7, dtype=torch.float64)
    found = correlation(clock, clock[:, None] + eps.flatten(1).double().norm(dim=1).log()[None])
    halves = [size / 2, *([freedom / 2] if freedom else [])]
    noise = sum(float(torch.polygamma(1, torch.tensor(h, dtype=torch.float64))) for h in halves) / 4
    signal = float(clock.square().mean())
    assert found.value == pytest.approx(math.sqrt(signal / (signal + noise)), abs=4 * found.se)
    assert found.se < 0.01


def test_a_measure_is_found_by_its_name_once() -> None:
    assert parse(Anatomy, {"measures": []}).measures == []
    with pytest.raises(BadConfig, match=r"did you mean 'eps-norm'\?"):
        parse(Anatomy, {"measures": ["eps-norms"]})
    with pytest.raises(BadConfig, match="a name stands twice"):
        parse(Anatomy, {"measures": ["gain", {"name": "gain"}]})


def test_perturbed_images_are_a_part_of_those_that_chains_start_from() -> None:
    with pytest.raises(BadConfig, match="perturbed 50, images 20 and observed 500"):
        parse(Anatomy, {"images": 20})


@pytest.mark.parametrize(
    ("sampler", "learned", "expected"),
    [
        ({"name": "ancestral", "variance": "fixed-small"}, True, "small"),
        ({"name": "ancestral", "variance": "fixed-large"}, True, "large"),
        ({"name": "ancestral", "variance": "learned-or-large"}, True, "between"),
        ({"name": "ancestral", "variance": "learned-or-large"}, False, "large"),
        ({"name": "ddim"}, True, "between"),
        ({"name": "ddim"}, False, "small"),
    ],
)
def test_the_modular_error_takes_the_variance_of_the_sampler(sampler: dict, learned: bool, expected: str) -> None:
    step = paths.build(Diffusion(timesteps=100)).grid(10).step(4)
    x0 = torch.zeros(3, 1, 2, 2)
    fraction = torch.full_like(x0, 0.5) if learned else None
    prediction = Prediction(x0, torch.tensor(step.a), torch.tensor(step.s), x0, "x0", fraction)
    found = divergence(step, x0, prediction, Sampling(sampler=sampler, nfe=[10]))
    small, large = math.log(step.posterior_variance), math.log(step.forward_variance)
    w = {"small": small, "large": large, "between": (small + large) / 2}[expected]
    assert found.tolist() == pytest.approx([0.5 * (w - small - 1 + math.exp(small - w))] * 3, abs=1e-6)
