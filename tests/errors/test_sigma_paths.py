"""The cumulative error on paths whose time is sigma: exact sampling is within the null, and the stages run on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.config.models import Diffusion, Errors, Run, Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion import paths
from pipeline_lib.errors import bandwidths, cumulative
from pipeline_lib.errors.chains import Chains
from pipeline_lib.errors.cumulative import Comparison
from pipeline_lib.errors.forward import MEASURED, ForwardSamples
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run

from .conftest import SHAPE, GaussianPosterior

SETTINGS = Errors(chains=300, times=6, permutations=99, null_times=6, confidence=0.99, kernels=["gaussian"])
HEUN = {"sampler": {"name": "edm"}, "nfe": [35], "images": 300, "clip_x0": False}


def path(kind: str, freedom: int = 3) -> paths.GaussianPath:
    return paths.build(Diffusion(path=kind, prediction="edm", extra_dimensions=freedom))


def rows(on: paths.GaussianPath, data: Prepared, forward: paths.GaussianPath) -> list[dict[str, Any]]:
    """Of exact denoisers for normal noise against forward samples of a path."""
    one = Chains(GaussianPosterior(on), "f" * 64, Sampling(**HEUN), 35, SETTINGS.chains, SHAPE)
    samples = ForwardSamples(data, 300, 0, MEASURED, path=forward)
    cell = Comparison(one.grid, [samples], bandwidths.measure(data, seed=0), SETTINGS)
    assert one.visit(SETTINGS.times, cell.see) == 35
    return [row for row in cell.rows if row["bandwidth"] == "per-t"]


def test_exact_sampling_stays_within_the_null(gaussian_data: Prepared) -> None:
    """From sigma = 80 to clean data, at 18 steps of Heun's method."""
    found = rows(path("edm"), gaussian_data, path("edm"))
    assert [found[0]["t"], found[-1]["t"]] == pytest.approx([80, 0])
    assert len({row["step"] for row in found}) == 6
    assert sum(row["p_value"] <= 0.01 for row in found) == 0


def test_the_prior_of_pfgm_is_its_forward_law_and_not_that_of_edm(gaussian_data: Prepared) -> None:
    same, other = (rows(path("pfgm"), gaussian_data, path(kind))[0] for kind in ("pfgm", "edm"))
    assert same["t"] == other["t"] == 80
    assert same["p_value"] > 0.01
    assert other["p_value"] <= 0.01


@pytest.mark.parametrize("objective", ["edm", "pfgmpp"])
def test_a_run_passes_all_stages(objective: str, tiny_data: Manifest, tmp_path: Path) -> None:
    """Conditional, augmented, with a half-life; sampled at 9 calls and measured at every place."""
    kind = {"edm": "edm", "pfgmpp": "pfgm"}[objective]
    network = {"name": "songunet", "augment": True, "conditional": True}
    half_life = {"ema_halflife_images": 64}
    config = tiny_run(
        objective={"name": objective, "augment": 0.5},
        diffusion={"path": kind, "prediction": "edm", "extra_dimensions": 4},
        network=network,
        training=half_life,
    )
    assert Run.model_validate({k: v for k, v in config.items() if k != "seed"}).network["augment"]
    train.run(config, RUNTIME, tmp_path / "train.json", tiny_data)
    trained = Manifest.load(tmp_path / "train.json")
    sampling = Sampling(**{**HEUN, "nfe": [9], "images": 20}).model_dump(mode="json")
    _stage.run(sampling, {"batch": 8}, tmp_path / "sample.json", trained)
    assert Manifest.load(tmp_path / "sample.json").facts["cells"][0]["calls"] == 9
    bandwidths.run({"seed": 0}, {"forward": 16}, tmp_path / "bandwidths.json", tiny_data)
    errors = Errors(chains=12, forward=16, times="every", permutations=0).model_dump(mode="json")
    measured = {k: v for k, v in sampling.items() if k != "images"}
    out = [tmp_path / f"{name}.parquet" for name in ("errors", "trends", "influences", "anatomy")]
    frozen = Manifest.load(tmp_path / "bandwidths.json")
    anatomy = {"observed": 16, "images": 8, "perturbed": 8}
    cumulative.run({"sampling": measured, "anatomy": anatomy, **errors}, {"batch": 5}, *out, trained, tiny_data, frozen)
    found = tables.read(out[0])
    assert set(found["nfe"]) == {9}
    assert sorted(found["t"].unique(), reverse=True) == pytest.approx(list(path(kind).grid(5).times))
    assert np.isfinite(found["mmd2"]).all()
    dissected = tables.read(out[3])
    assert set(dissected["start"].dropna()) == {1.0, 0.7, 0.3, 0.1}  # of 5 steps; 0.5 falls together with 0.7
    assert np.isfinite(dissected["value"]).all()
