"""Features that two processes extract are those of one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest, entry
from pipeline_lib.scores.frechet import Moments
from tests.conftest import write_config
from tests.scores.conftest import REFERENCE

ROOT = Path(__file__).parents[2]


def stage(name: str, *arguments: str) -> None:
    """A stage by its command, in as many processes as the current folder is called."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_lib", name, *arguments, "--processes", Path.cwd().name],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def scored() -> None:
    """Reference and scores of 300 images, with 600 of 1500 in a last batch that is not whole."""
    images = np.load(Path(Manifest.load("data.json").folder) / "train-images.npy")[:300]
    store = entry("sample", 1, {"of": "a test"})
    store.folder.mkdir(parents=True)
    np.save(store.folder / "images.npy", images)
    cell = {"images": "images.npy", "calls": 2.0, "nfe": 2, "count": 300}
    store.finish(["images.npy"], {"cells": [cell]}).save("sample.json")
    config = write_config(Path("config.json"), "reference", REFERENCE)
    inputs = ["--classifier", "classifier.json"]
    stage("reference", "--config", str(config), "--data", "data.json", *inputs, "--output", "reference.json")
    config = write_config(Path("config.json"), "scores", {"samples": None, "extrapolate": False})
    inputs += ["--sample", "sample.json", "--reference", "reference.json"]
    stage("scores", "--config", str(config), *inputs, "--output", "s.parquet", "--influences", "i.parquet")


def test_two_processes_score_as_one(data: Manifest, trained: Manifest, monkeypatch) -> None:
    data.save("data.json")
    trained.save("classifier.json")
    for processes in ("1", "2"):
        shutil.copytree("results", f"{processes}/results")
        for name in ("data.json", "classifier.json"):
            shutil.copy(name, processes)
        with monkeypatch.context() as patch:
            patch.chdir(processes)
            scored()
    name = trained.facts["name"]
    folders = [Path(n) / Manifest.load(f"{n}/reference.json").folder for n in ("1", "2")]
    one, two = (Moments.load(folder / f"{name}.npz") for folder in folders)
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=0, atol=1e-6)
    assert one.count == two.count == 1500
    kept = [np.load(folder / f"{name}-features.npy") for folder in folders]
    np.testing.assert_allclose(*kept, rtol=0, atol=1e-5)
    values = [tables.read(Path(n) / "s.parquet", tables.SCORES) for n in ("1", "2")]
    done = [v[v.status == "done"].value.to_numpy() for v in values]
    assert len(done[0]) > 2
    np.testing.assert_allclose(*done, rtol=1e-4, atol=1e-6)
