"""Length scales: known medians, one clock for all schedules, frozen in the store."""

from math import inf, sqrt

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.kernels import squared_distances
from pipeline_lib.errors import bandwidths
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.errors.forward import MEASURED, ForwardSamples, normalise
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.store import Manifest


def test_sigma_data_is_the_mean_squared_pixel(gaussian_data):
    values = gaussian_data.images.astype(np.float64) / 127.5 - 1
    assert bandwidths.mean_square(gaussian_data.images, chunk=7) == pytest.approx((values**2).mean(), rel=1e-12)


def test_ends_are_the_medians_of_clean_data_and_of_pure_noise(gaussian_data):
    frozen = bandwidths.measure(gaussian_data, seed=0)
    values = (gaussian_data.images / 127.5 - 1).reshape(len(gaussian_data), -1) / sqrt(frozen.sigma_data2)
    assert frozen.length_scale(inf, "per-t") == pytest.approx(np.median(pdist(values)), rel=1e-4)
    noise = np.random.default_rng(1).normal(size=(1500, values.shape[1]))
    assert frozen.length_scale(-20, "per-t") == pytest.approx(np.median(pdist(noise)), rel=0.02)
    assert frozen.length_scale(-20, "shared") == frozen.length_scale(inf, "shared") == frozen.shared
    assert frozen.clean < frozen.shared < frozen.medians[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_schedule_finds_its_own_median_at_its_log_snr(gaussian_data, schedule):
    frozen = bandwidths.measure(gaussian_data, seed=0)
    grid = paths.build(Diffusion(schedule=schedule)).grid(10)
    forward = ForwardSamples(gaussian_data, 600, 5, MEASURED)
    for a, s in list(zip(grid.a, grid.s, strict=True))[:-1]:
        x = normalise(forward.at(a, s), a, s, frozen.sigma_data2)
        own = float(squared_distances(x)[np.triu_indices(600, 1)].median().sqrt())
        assert frozen.length_scale(paths.log_snr(a, s), "per-t") == pytest.approx(own, rel=0.02)


def test_a_variance_exploding_path_shares_the_clock(gaussian_data):
    """x = x_0 + sigma eps, normalised, is the same as the variance-preserving x_t of equal log-SNR, normalised."""
    forward, sigma = ForwardSamples(gaussian_data, 20, 0, MEASURED), 3.0
    a, s = 1 / sqrt(1 + sigma**2), sigma / sqrt(1 + sigma**2)
    exploding = normalise(forward.at(1.0, sigma), 1.0, sigma, 0.5)
    preserving = normalise(forward.at(a, s), a, s, 0.5)
    assert np.allclose(exploding, preserving, atol=1e-6)
    assert paths.log_snr(1.0, sigma) == pytest.approx(paths.log_snr(a, s))


def test_the_stage_freezes_once_and_finds_it_again(gaussian_data, tmp_path, monkeypatch):
    bandwidths.run({"seed": 3}, {"forward": 600}, tmp_path / "first.json", gaussian_data.manifest)
    monkeypatch.setattr(bandwidths, "measure", lambda *_: pytest.fail("measured again"))
    bandwidths.run({"seed": 3}, {"forward": 600}, tmp_path / "second.json", gaussian_data.manifest)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    manifest = Manifest.load(tmp_path / "first.json")
    assert Bandwidths.load(manifest).shared == manifest.facts["shared"]
    with (tmp_path / manifest.folder / "bandwidths.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(BadData, match="is not what it was"):
        Bandwidths.load(manifest)


def test_identical_images_are_refused(dataset):
    with pytest.raises(BadData, match="identical"):
        bandwidths.measure(dataset(np.full((40, 1, 4, 4), 7, np.uint8)), seed=0)


def test_more_forward_samples_than_images_are_refused_before_any_training_ends(gaussian_data, tmp_path):
    with pytest.raises(BadConfig, match=r"601 forward samples are asked for .* has 600 training images"):
        bandwidths.run({"seed": 3}, {"forward": 601}, tmp_path / "out.json", gaussian_data.manifest)
