"""Moments that a sampler asks for: their values against a closed form, and their way into the sampler."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Oracle
from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _moments, _stage
from pipeline_lib.training import train
from tests.config.test_plan import changed, plan
from tests.conftest import RUNTIME, tiny_run

SPREAD = 0.09  # variance of the data
PATH = paths.build(Diffusion(timesteps=100))
ANALYTIC = {"name": "analytic-dpm", "images": 20}


class Images:
    """Isotropic Gaussian data in the place of a prepared dataset."""

    labels = None

    def floats(self, index: slice, device: object) -> torch.Tensor:
        draws = torch.randn(4000, 2, 1, 1, generator=torch.Generator().manual_seed(1))
        return SPREAD**0.5 * draws[index]


def test_gamma_of_the_exact_denoiser_is_its_closed_form() -> None:
    """eps = s x_t / (a^2 v + s^2), so Gamma_t = s^2 / (a^2 v + s^2); two grids are measured at the union of their t."""
    denoiser = Oracle(PATH, gaussian(torch.zeros(2), SPREAD * torch.eye(2)))
    sampling = Sampling(sampler="analytic-dpm", nfe=[3, 5])
    rows = _moments.measure(denoiser, Images(), sampling, 4000, 1500)
    visited = {step.t: step for nfe in (3, 5) for step in PATH.grid(nfe)}
    assert [row["t"] for row in rows] == sorted(visited)
    for row in rows:
        step = visited[row["t"]]
        exact = step.s**2 / (step.a**2 * SPREAD + step.s**2)
        assert abs(row["gamma"] - exact) < 4.5 * row["se"]
        assert row["se"] == pytest.approx(exact * (2 / 2 / 4000) ** 0.5, rel=0.1)  # of a chi-square with 2 degrees


def test_the_stage_hands_its_moments_to_the_sampler(tiny_data: Manifest, tmp_path: Path) -> None:
    train.run(tiny_run(), RUNTIME, tmp_path / "train.json", tiny_data)
    trained = Manifest.load(tmp_path / "train.json")
    sampling = Sampling(sampler=ANALYTIC, nfe=[4, 8], images=10).model_dump(mode="json")
    with pytest.raises(BadConfig, match="knows no Gamma"):
        _stage.run(sampling, {"batch": 16}, tmp_path / "sample.json", trained)
    asked = {k: sampling[k] for k in ("sampler", "spacing", "nfe", "seed")}
    _moments.run(asked, {"batch": 16}, tmp_path / "moments.json", trained, tiny_data)
    moments = Manifest.load(tmp_path / "moments.json")
    rows = tables.read(moments.file(_moments.FILE), tables.MOMENTS)
    assert rows["gamma"].between(0, 10).all()
    assert set(rows["n"]) == {20}
    _stage.run(sampling, {"batch": 16}, tmp_path / "sample.json", trained, moments=moments)
    drawn = Manifest.load(tmp_path / "sample.json")
    images = np.load(drawn.file(drawn.facts["cells"][0]["images"]))
    given = {**ANALYTIC, "gamma": {round(t): g for t, g in zip(rows["t"], rows["gamma"], strict=True)}}
    own = Sampling(sampler=given, nfe=[4, 8], images=10).model_dump(mode="json")
    _stage.run(own, {"batch": 16}, tmp_path / "own.json", trained)
    again = Manifest.load(tmp_path / "own.json")
    assert np.array_equal(images, np.load(again.file(again.facts["cells"][0]["images"])))


def test_only_a_sampler_that_asks_for_moments_has_the_rule() -> None:
    def stages(sampler: dict) -> set[str]:
        one = plan(changed("sampling/ancestral/sampler", sampler))
        return {config["stage"] for _, config in one.stage_configs()}

    assert "moments" in stages({"name": "analytic-dpm"})
    assert "moments" not in stages({"name": "analytic-dpm", "gamma": {"1": 0.5}})
    assert "moments" not in stages({"name": "ddim"})
