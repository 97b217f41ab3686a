"""The error curve: nothing where sampling is exact, a shift in t is caught, and the stage end to end."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline_lib.config.models import MEASURES, Diffusion, Errors, Run, Training
from pipeline_lib.errors import bandwidths, chains, cumulative, trends
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.errors.chains import Chains, measured
from pipeline_lib.errors.cumulative import Comparison
from pipeline_lib.errors.forward import MEASURED, ForwardSamples
from pipeline_lib.errors.jackknife import Estimate
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.networks import trained
from pipeline_lib.records import tables
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest

from .conftest import SHAPE

ANATOMY = {"observed": 10, "images": 8, "perturbed": 8, "starts": [0.5, 1.0]}
SETTINGS = Errors(chains=300, times=8, permutations=199, null_times=8, confidence=0.99)


@pytest.fixture(scope="module")
def exact_chains():
    """x_t of exact sampling on a fine grid, by place; drawn once for all tests of this file."""
    return {}


@pytest.fixture
def exact(denoiser, sampling, gaussian_data, exact_chains):
    """Chains of the exact denoiser over all 1000 steps, and what they are compared with."""
    one = Chains(denoiser, "f" * 64, sampling(1000), 1000, SETTINGS.chains, SHAPE)
    if not exact_chains:
        one.visit(SETTINGS.times, exact_chains.__setitem__)
    frozen = bandwidths.measure(gaussian_data, seed=0)
    forward = ForwardSamples(gaussian_data, 300, 0, MEASURED)
    return exact_chains, lambda settings=SETTINGS: Comparison(one.grid, [forward], frozen, settings)


def test_exact_sampling_stays_within_the_null(exact):
    seen, compare = exact
    cell = compare()
    for place, x in seen.items():
        cell.see(place, x)
    rows = tables.frame(cell.rows, tables.ERRORS)
    assert sorted(rows["step"].unique()) == measured(1000, 8)
    assert len(rows) == 8 * 3 * 2
    assert (rows["mmd2"] < rows["null_quantile"]).all()
    assert (rows["p_value"] > 0.01).all()
    assert (rows["mmd2"].abs() < 4 * rows["se"]).all()
    assert "grows" not in {row["verdict"] for row in cell.trends()}
    assert np.allclose(rows["high"] - rows["mmd2"], 2.575829 * rows["se"])  # two-sided 99 %
    assert np.allclose(rows["mmd2"] - rows["low"], 2.575829 * rows["se"])


def test_a_shift_of_one_measured_step_is_caught(exact):
    """Sampled x_t against forward x_{t'} of the next place: each differs once there is data in x_t (t < 500)."""
    seen, compare = exact
    cell, places = compare(), measured(1000, 8)
    for place, after in pairwise(places):
        cell.see(after, seen[place])
    rows = tables.frame(cell.rows, tables.ERRORS)
    moved = rows[rows["step"] > 500]
    assert (moved["mmd2"] > moved["null_quantile"]).all()


def test_rows_state_the_time_and_clock_of_their_place(exact):
    seen, compare = exact
    cell = compare(SETTINGS.model_copy(update={"statistic": "v", "null_times": 2}))
    for place, x in seen.items():
        cell.see(place, x)
    rows = tables.frame(cell.rows, tables.ERRORS)
    per_t = rows[rows["bandwidth"] == "per-t"].drop_duplicates("step").set_index("step")
    assert per_t.loc[[0, 1000], "t"].tolist() == [1000, 0]
    assert np.isinf(per_t.loc[1000, "log_snr"])
    a, s = cell.grid.a[571], cell.grid.s[571]
    assert per_t.loc[571, "log_snr"] == pytest.approx(np.log(a**2 / s**2))
    assert set(rows[rows["bandwidth"] == "shared"]["length_scale"]) == {cell.frozen.shared}
    assert per_t["length_scale"].nunique() == 8
    assert sorted(rows.dropna(subset="p_value")["step"].unique()) == [0, 1000]
    assert (rows["mmd2"] >= 0).all()
    assert {row["trend"] for row in cell.trends()} == set(trends.TRENDS)


def test_chains_that_are_not_finite_are_refused(exact):
    seen, compare = exact
    cell, broken = compare(), seen[0].clone().fill_(torch.nan)
    cell.see(0, broken)
    with pytest.raises(BadData, match="not finite at t = 1000"):
        cell.see(1, seen[0])
    last = compare()
    last.see(0, broken)
    with pytest.raises(BadData, match="not finite at t = 1000"):
        _ = last.rows


@pytest.fixture
def stage(gaussian_data, tmp_path, monkeypatch):
    """The stage on an untrained network of 30 steps; returns a function that runs it with other settings."""
    monkeypatch.setattr(cumulative.device, "pick", lambda: torch.device("cpu"))
    network = {"channels": 8, "channel_mult": [1], "res_blocks": 1, "attention_resolutions": [], "dropout": 0}
    path, training = Diffusion(timesteps=30, schedule="cosine"), Training(batch_size=64, mmd_group=16)
    bandwidths.run({"seed": 0}, {"forward": 16}, tmp_path / "bandwidths.json", gaussian_data.manifest)
    sampling = {"sampler": {"name": "ancestral"}, "nfe": [5, 30], "seed": 0}
    errors = Errors(chains=12, forward=16, times=4, permutations=19, null_times=2).model_dump(mode="json")

    def trained_by(objective):
        run = Run(diffusion=path, network=network, training=training, objective={"name": objective})
        weights = tmp_path / "train" / "weights.safetensors"
        trained.save(weights, trained.build(run, SHAPE, 0).network.state_dict(), run, SHAPE, 0)
        return Manifest("train", "1" * 64, str(weights.parent), {weights.name: sha256(weights)})

    def measure(objective="ddpm", **changes):
        paths = [tmp_path / "out" / f"{name}.parquet" for name in ("errors", "trends", "influences", "anatomy")]
        frozen = Manifest.load(tmp_path / "bandwidths.json")
        config = {"sampling": sampling, **errors, "anatomy": ANATOMY, **changes}
        cumulative.run(config, {"batch": 5}, *paths, trained_by(objective), gaussian_data.manifest, frozen)
        return paths

    return measure


def test_a_run_that_trains_on_its_own_samples_gets_a_second_curve_where_its_network_is_called(stage):
    both = {"forward_laws": ["marginal", "training-inputs"]}
    errors, slopes, shares = (tables.read(path) for path in stage("ddpm-reg", **both)[:3])
    alone, _, alone_shares = (tables.read(path) for path in stage("ddpm-reg")[:3])
    assert [len(c) for c in shares["chains"]] == [12] * len(alone_shares)  # of the marginal law alone
    assert errors[errors["law"] == "marginal"].reset_index(drop=True).equals(alone)
    second = errors[errors["law"] == "training-inputs"]
    assert set(alone["t"]) - set(second["t"]) == {0.0}
    early = second[(second["step"] > 0) & (second["t"] < 30)].merge(alone, on=["nfe", "kernel", "bandwidth", "step"])
    assert (early["mmd2_x"] != early["mmd2_y"]).all()
    assert (early["length_scale_x"] == early["length_scale_y"]).all()
    assert slopes.groupby("law").size().to_dict() == {"marginal": 48, "training-inputs": 48}
    assert slopes.groupby(["nfe", "law", "kernel", "bandwidth"])["verdict"].nunique().eq(1).all()


def test_a_run_that_trains_on_the_marginal_law_alone_gets_no_second_curve(stage):
    rows = tables.read(stage("ddpm", forward_laws=["marginal", "training-inputs"])[0])
    assert rows.equals(tables.read(stage("ddpm")[0]))
    assert set(rows["law"]) == {"marginal"}


def test_the_marginal_law_cannot_be_left_out(stage):
    with pytest.raises(BadConfig, match="forward_laws: marginal must be among them"):
        stage(forward_laws=["training-inputs"])


def test_the_stage_writes_every_cell_with_provenance(stage):
    errors, trends, influences, _ = stage()
    rows, slopes = tables.read(errors, tables.ERRORS), tables.read(trends, tables.TRENDS)
    assert rows.groupby("nfe").size().to_dict() == {5: 24, 30: 24}
    assert slopes.groupby("nfe").size().to_dict() == {5: 24, 30: 24}
    assert (rows["n"] == 12).all()
    assert (rows["m"] == 16).all()
    assert rows[rows["step"] > 0]["mmd2"].mean() > 10 * rows[rows["step"] == 0]["mmd2"].mean()  # an untrained network
    made = tables.provenance(errors)
    assert made["inputs"]["train"]["fingerprint"] == "1" * 64
    assert made == tables.provenance(trends) == tables.provenance(influences)
    assert json.loads((errors.parent / "costs.json").read_text())["stage"] == "errors"


def test_the_stored_influences_are_those_of_the_standard_errors(stage):
    errors, _, influences, _ = stage()
    rows = tables.read(influences, tables.INFLUENCES)
    both = rows.merge(tables.read(errors), on=["nfe", "kernel", "bandwidth", "step"], validate="1:1")
    assert len(both) == 48
    for row in both.itertuples():
        assert Estimate(row.mmd2, row.chains, row.forward).se == pytest.approx(row.se, rel=1e-5)
    assert pq.read_schema(influences).field("chains").type == pa.list_(pa.float32())


def test_influences_are_kept_at_so_many_times_as_are_asked_for(stage):
    """Of 4 measured places of 5 and 30 steps, the last and the first: the curves and their trends stay as they are."""
    errors, trends, influences, _ = (tables.read(path) for path in stage())
    paths = stage(paired_times=2)
    assert tables.read(paths[0]).equals(errors)
    assert tables.read(paths[1]).equals(trends)
    kept = tables.read(paths[2])
    assert kept.groupby("nfe")["step"].unique().map(sorted).to_dict() == {5: [0, 5], 30: [0, 30]}
    asked = influences.set_index(["nfe", "kernel", "bandwidth", "step"])
    for row in kept.itertuples():
        assert (asked.loc[(row.nfe, row.kernel, row.bandwidth, row.step), "chains"] == row.chains).all()


def test_an_estimate_reruns_from_scratch_and_without_it_to_the_same_bytes(stage, monkeypatch):
    first = [path.read_bytes() for path in stage()]
    shutil.rmtree(chains.SCRATCH)
    assert [path.read_bytes() for path in stage()] == first
    monkeypatch.setattr(chains, "draw", lambda *_: pytest.fail("the network was used"))
    assert [path.read_bytes() for path in stage()] == first
    assert stage(statistic="v")[0].read_bytes() != first[0]


def test_more_forward_samples_than_images_are_refused_before_anything_is_drawn(stage):
    with pytest.raises(BadConfig, match="601 forward samples"):
        stage(forward=601)
    assert not Path(chains.SCRATCH).exists()


def test_bandwidths_are_read_from_the_manifest_only(stage, tmp_path):
    frozen = Bandwidths.load(Manifest.load(tmp_path / "bandwidths.json"))
    rows = tables.read(stage()[0])
    assert set(rows[rows["bandwidth"] == "shared"]["length_scale"]) == {frozen.shared}


def test_the_anatomy_stands_beside_the_errors_with_their_steps_and_provenance(stage):
    errors, *_, anatomy = stage()
    rows, steps = tables.read(anatomy, tables.ANATOMY), tables.read(errors).groupby("nfe")["step"].unique()
    assert set(rows["measure"]) == set(MEASURES) - {"normality", "shifted-time"}  # 10 images are too few; no shift
    ordinary = rows[rows["start"].isna() & rows["step"].notna()]
    assert {nfe: set(of["step"]) for nfe, of in ordinary.groupby("nfe")} == {k: set(v) for k, v in steps.items()}
    assert set(rows["start"].dropna()) == {0.5, 1.0}
    known = rows[rows["reading"] != "ratio"]  # this network predicts eps = 0 before it is trained
    assert known["value"].notna().all()
    assert (known["low"] <= known["high"]).all()
    assert tables.provenance(anatomy) == tables.provenance(errors)


def test_without_measures_the_anatomy_is_an_empty_record_and_the_errors_are_the_same(stage):
    with_it = tables.read(stage()[0])
    errors, *_, anatomy = stage(anatomy={"measures": []})
    assert tables.read(errors).equals(with_it)
    assert tables.read(anatomy, tables.ANATOMY).empty
