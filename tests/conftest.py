"""Fixtures that several rooms use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Run
from pipeline_lib.records.store import Manifest, entry

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has results/ and work/ of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="tiny_data")
def _tiny_data() -> Manifest:
    return tiny_data()


def tiny_data() -> Manifest:
    """What `make_tiny_data` makes."""
    return make_tiny_data()


def make_tiny_data() -> Manifest:
    """48 images 1x8x8 of two classes: left half bright, or top half bright, with some noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = rng.integers(0, 60, (48, 1, 8, 8))
    images[labels == 0, :, :, :4] += 180
    images[labels == 1, :, :4, :] += 180
    store = entry("data", 1, {"recipe": "tiny"})
    store.folder.mkdir(parents=True)
    np.save(store.folder / "train-images.npy", images.astype(np.uint8))
    np.save(store.folder / "train-labels.npy", labels.astype(np.int64))
    facts = {"count": 48, "shape": [1, 8, 8], "classes": ["left", "top"], "holdout": 0}
    return store.finish(["train-images.npy", "train-labels.npy"], facts)


def tiny_run(**overrides: Any) -> dict[str, Any]:
    """The configuration of a training that takes a second: T = 8, a network of a few thousand weights."""
    values: dict[str, Any] = {
        "objective": {"name": "ddpm"},
        "diffusion": {"timesteps": 8},
        "network": {
            "channels": 8,
            "channel_mult": [1, 2],
            "res_blocks": 1,
            "attention_resolutions": [4],
            "dropout": 0.0,
        },
        "training": {"steps": 12, "batch_size": 16, "lr": 1e-3, "warmup_steps": 2, "ema_decay": 0.9},
    }
    for section, changes in overrides.items():
        values[section] = {**values[section], **changes}
    return {**Run.model_validate(values).model_dump(mode="json"), "seed": 0}


RUNTIME = {"checkpoint_minutes": 10, "log_every": 5, "grid_every": 0}


def write_config(path: Path, stage: str, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> Path:
    """A stage configuration as the workflow writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stage": stage, "config": config, "runtime": runtime or {}}))
    return path
