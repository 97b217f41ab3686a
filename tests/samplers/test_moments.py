"""Moments that a sampler asks for: their values against a closed form, and their way into the sampler."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _moments, _stage
from pipeline_lib.samplers.corrections.variance_downscaling import Options, build
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


@pytest.mark.parametrize("error", [{}, {"scale": 1.3}, {"pull": 0.2}, {"bias": 0.5}], ids=str)
def test_the_error_of_x0_is_its_closed_form(error: dict[str, float]) -> None:
    """x_0' = g x_t + b: E e^2, Var(x_0') - Var(x_0) and Cov(e, x_t) by hand; b is in E e^2 alone."""
    denoiser = Erring(Oracle(PATH, gaussian(torch.zeros(2), SPREAD * torch.eye(2))), **error)
    sampling = Sampling(sampler="ancestral", nfe=[4], clip_x0=False)
    for row in _moments.measure(denoiser, Images(), sampling, 4000, 1500):
        step = next(one for one in PATH.grid(4) if one.t == row["t"])
        total = step.a**2 * SPREAD + step.s**2
        g = (1 - error.get("pull", 0)) * (1 - error.get("scale", 1) * step.s**2 / total) / step.a
        b = step.s / step.a * error.get("bias", 0)
        near = {"abs": 0.1 * (g**2 * total + SPREAD), "rel": 0.06}
        assert row["x0_error"] == pytest.approx(g**2 * total - 2 * g * step.a * SPREAD + SPREAD + b**2, **near)
        assert row["x0_excess"] == pytest.approx(g**2 * total - SPREAD, **near)
        assert row["x0_cross"] == pytest.approx(g * total - step.a * SPREAD, abs=0.1 * total * abs(g) + 0.005)


def test_the_error_of_x0_is_that_of_the_clipped_one_where_the_sampling_clips() -> None:
    denoiser = Erring(Oracle(PATH, gaussian(torch.zeros(2), SPREAD * torch.eye(2))), bias=-20.0)
    free, clipped = (
        _moments.measure(denoiser, Images(), Sampling(sampler="ancestral", nfe=[1], clip_x0=clip), 500, 500)[0]
        for clip in (False, True)
    )
    assert free["x0_error"] > 100
    assert clipped["x0_error"] == pytest.approx(1 + SPREAD, rel=0.1)  # all are clipped to 1
    assert clipped["gamma"] == free["gamma"]


def test_a_correction_asks_for_moments_and_says_what_share_of_its_steps_is_infeasible(
    tiny_data: Manifest, tmp_path: Path
) -> None:
    train.run(tiny_run(), RUNTIME, tmp_path / "train.json", tiny_data)
    trained = Manifest.load(tmp_path / "train.json")
    values = changed("sampling/ancestral", {"sampler": "ancestral", "nfe": [8], "images": 10, "clip_x0": False})
    downscaling = {"name": "variance-downscaling", "images": 20}
    values["sampling"]["ancestral"]["corrections"] = [{"name": "epsilon-scaling", "b": 1.01}, downscaling]
    configs = {config["stage"]: config["config"] for _, config in plan(values).stage_configs()}
    assert [one["name"] for one in configs["moments"]["corrections"]] == ["variance-downscaling"]
    _moments.run(configs["moments"], {"batch": 16}, tmp_path / "moments.json", trained, tiny_data)
    moments = Manifest.load(tmp_path / "moments.json")
    _stage.run(configs["sample"], {"batch": 4}, tmp_path / "sample.json", trained, moments=moments)
    cell = Manifest.load(tmp_path / "sample.json").facts["cells"][0]
    path = paths.build(Diffusion(**tiny_run()["diffusion"]))
    told = _moments.known(Sampling(**configs["sample"]), moments, 8).corrections[1]
    correction = build(Options(**{k: v for k, v in told.items() if k not in ("name", "code")}), PATH, 8)
    for step in list(path.grid(8))[:-1]:
        correction.noise(step, step.posterior_variance)
    assert cell["infeasible"] == correction.facts()["infeasible"] > 0  # hardly trained


def test_the_stage_hands_its_moments_to_the_sampler(tiny_data: Manifest, tmp_path: Path) -> None:
    train.run(tiny_run(), RUNTIME, tmp_path / "train.json", tiny_data)
    trained = Manifest.load(tmp_path / "train.json")
    sampling = Sampling(sampler=ANALYTIC, nfe=[4, 8], images=10).model_dump(mode="json")
    with pytest.raises(BadConfig, match="knows no Gamma"):
        _stage.run(sampling, {"batch": 16}, tmp_path / "sample.json", trained)
    asked = {k: sampling[k] for k in ("sampler", "spacing", "nfe", "seed")}
    _moments.run(asked, {"batch": 16}, tmp_path / "moments.json", trained, tiny_data)
    moments = Manifest.load(tmp_path / "moments.json")
    rows = pd.concat([tables.read(moments.file(_moments.file(nfe)), tables.MOMENTS) for nfe in (4, 8)])
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
    more = {**sampling, "nfe": [4, 6, 8]}
    _moments.run({**asked, "nfe": more["nfe"]}, {"batch": 16}, tmp_path / "more.json", trained, tiny_data)
    measured = Manifest.load(tmp_path / "more.json")
    assert (measured.fingerprint, measured.files.items() > moments.files.items()) == (moments.fingerprint, True)
    with pytest.raises(BadData, match="have no nfe0006"):
        _stage.run(more, {"batch": 16}, tmp_path / "grown.json", trained, moments=moments)
    _stage.run(more, {"batch": 16}, tmp_path / "grown.json", trained, moments=measured)
    grown = Manifest.load(tmp_path / "grown.json")
    assert grown.folder == drawn.folder, "another number of calls draws the others anew"
    assert drawn.files.items() <= grown.files.items()


def test_only_a_sampler_that_asks_for_moments_has_the_rule() -> None:
    def stages(sampler: dict) -> set[str]:
        one = plan(changed("sampling/ancestral/sampler", sampler))
        return {config["stage"] for _, config in one.stage_configs()}

    assert "moments" in stages({"name": "analytic-dpm"})
    assert "moments" not in stages({"name": "analytic-dpm", "gamma": {"1": 0.5}})
    assert "moments" not in stages({"name": "ddim"})
