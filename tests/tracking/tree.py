"""A synthetic results folder of one experiment, as the stages leave it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Instance, Plan
from pipeline_lib.records import tables
from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.training.identity import store_of

CLOCK = 1_700_000_000  # seconds; what file times are set to, so that a test does not depend on when it runs
STEPS = 1200
VARIANTS = {"paper": {}, "wide": {"run": {"network": {"channels": 256}}}}


def plan(
    uri: str = "sqlite:///results/mlflow.db",
    lr: float = 1e-3,
    tuning: dict[str, Any] | None = None,
    name: str = "suite",
) -> Plan:
    """One dataset, one method in two variants, two seeds, one sampling with two cells."""
    values: dict[str, Any] = {
        "experiment": name,
        "base": {"training": {"steps": STEPS, "lr": lr}},
        "seeds": [0, 1],
        "datasets": {"digits": {"recipe": {"name": "digits"}}},
        "methods": {"ddpm": {"objective": "ddpm", "variants": VARIANTS}},
        "sampling": {"ancestral": {"sampler": {"name": "ancestral"}, "nfe": [20, 100], "images": 8, "tuning": tuning}},
        "tracking": {"uri": uri},
    }
    return Plan(parse_experiment(values), "config.yaml")


def prepare(planned: Plan) -> None:
    """Everything of the dataset, below the current folder."""
    planned.write()
    store = entry("data", 1, {"name": "digits"})
    save(store, {"train-images.npy": b"images"}, {"classes": []}, planned.root / "digits" / "data" / "manifest.json")
    rows = [
        {"metric": "FD (classifier-digits)", "value": value, "status": "done", "control": control}
        for control, value in (("floor", 0.5), ("ceiling", 90.0))
    ]
    tables.write(planned.root / "digits" / "controls" / "scores.parquet", rows, tables.SCORES)


def train(planned: Plan, one: Instance) -> None:
    """A finished training."""
    config = {**one.run.model_dump(mode="json"), "seed": one.seed}
    store = entry("train", 1, config)
    home = planned.root / one.path / "train"
    history(store.folder, one, STEPS)
    picture(store.folder / "grid.png", one.seed)
    written = {name: (store.folder / name).read_bytes() for name in ("history.parquet", "grid.png")}
    save(store, {**written, "weights.safetensors": b"weights"}, {"steps": STEPS}, home / "manifest.json")
    write_json(home / "costs.json", {"seconds": 600.0, "host": "node1", "device": "cpu", "segments": 2})


def finish(planned: Plan) -> None:
    """All of a complete experiment but tables, figures and the report."""
    prepare(planned)
    for one in planned.instances:
        train(planned, one)
        measure(planned, one)


def begin(planned: Plan, one: Instance, steps: int) -> Path:
    """A training at a checkpoint after so many steps; returns its folder in the store."""
    config = {**one.run.model_dump(mode="json"), "seed": one.seed}
    folder = store_of(config, Manifest.load(planned.root / one.dataset / "data" / "manifest.json")).folder
    history(folder, one, steps)
    return folder


def history(folder: Path, one: Instance, steps: int) -> None:
    """What a training has logged after so many steps."""
    rows = [
        {"step": step, "images": 128 * step, "key": key, "value": curve(one, step) * scale}
        for step in range(1, steps + 1)
        for key, scale in (("loss", 1.0), ("loss/eps (weighted)", 0.5))
        if key == "loss" or step <= 3
    ]
    tables.write(folder / "history.parquet", rows, tables.HISTORY)


def measure(planned: Plan, one: Instance, scale: float = 1.0) -> None:
    """Samples, errors, trends and scores of a trained run."""
    home = planned.root / one.path / "ancestral"
    store = entry("sample", 1, {"train": one.path})
    written = {}
    for nfe in (20, 100):
        picture(store.folder / f"nfe{nfe:04d}" / "grid.png", one.seed + nfe)
        written[f"nfe{nfe:04d}/grid.png"] = (store.folder / f"nfe{nfe:04d}" / "grid.png").read_bytes()
    cells = [{"nfe": nfe, "grid": f"nfe{nfe:04d}/grid.png"} for nfe in (20, 100)]
    save(store, written, {"cells": cells}, home / "sample" / "manifest.json")
    cell = [
        {"nfe": n, "law": law, "kernel": "laplace", "bandwidth": b}
        for n in (20, 100)
        for law in ("marginal", "training-inputs")
        for b in ("shared", "per-t")
    ]
    errors = [
        {
            **c,
            "step": step,
            "mmd2": scale * step * (1 if c["bandwidth"] == "shared" else -1) * (1 if c["law"] == "marginal" else 9),
        }
        for c in cell
        for step in range(5)
    ]
    tables.write(home / "errors" / "errors.parquet", errors, tables.ERRORS)
    trends = [{**c, "trend": "growth-ratio", "value": scale * 3.0} for c in cell]
    tables.write(home / "errors" / "trends.parquet", trends, tables.TRENDS)
    done = {"nfe": 100, "metric": "FD (classifier-digits)", "value": scale * 7.25, "status": "done"}
    pending = {"nfe": 100, "metric": "FID", "value": None, "status": "pending", "note": "no weights"}
    tables.write(home / "scores" / "scores.parquet", [done, pending], tables.SCORES)


def tune(planned: Plan, one: Instance) -> None:
    """The trials of a search of b at both numbers of calls."""
    home = planned.root / one.path / "ancestral" / "tune"
    found = {f"nfe{nfe:04d}/found.json": b"{}" for nfe in (20, 100)}
    save(entry("tune", 1, {"train": one.path}), found, {}, home / "manifest.json")
    rows = [
        {
            "nfe": nfe,
            "way": "uniform-scaling",
            "trial": trial,
            "round": "b, stride 0.005",
            "b": b,
            "options": json.dumps({"name": "epsilon-scaling", "b": b}),
            "metric": "FD (classifier-digits)",
            "score": 9.0 - trial,
            "calls": 8 * nfe,
            "seconds": 3.0,
            "chosen": "chosen" if b > 1 else "",
        }
        for nfe in (20, 100)
        for trial, b in enumerate((0.995, 1.0, 1.005))
    ]
    tables.write(home / "trials.parquet", rows, tables.TRIALS)
    os.utime(home / "trials.parquet", (CLOCK, CLOCK))


def fail(planned: Plan, one: Instance) -> None:
    """The marker of a training that ended for good."""
    write_json(
        planned.root / one.path / "train" / "failed.json", {"key": "", "code": 65, "sentence": "the loss is nan."}
    )


def curve(one: Instance, step: int) -> float:
    """A loss that falls to a level of its own."""
    return 0.05 + 0.01 * one.seed + 1.0 / step


def picture(path: Path, seed: int) -> None:
    """A small random PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)).save(path)


def save(store: Entry, files: dict[str, bytes], facts: dict[str, Any], manifest: Path) -> Manifest:
    """Store files and write the manifest that names them, with a file time that does not depend on the clock."""
    for name, content in files.items():
        (store.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (store.folder / name).write_bytes(content)
    made = store.finish(list(files), facts)
    made.save(manifest)
    os.utime(manifest, (CLOCK, CLOCK))
    return made


def experiment(planned: Plan) -> dict[str, Any]:
    """The summary as the command line reads it."""
    return json.loads((planned.root / "config" / "experiment.json").read_text())
