"""Prepared digits, samples and weights without the stages that make them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest, entry
from pipeline_lib.scores import _torchvision, classifier, extractors, reference

SETTINGS = {"features": 16, "channels": 8, "steps": 60, "batch_size": 64, "lr": 5e-3, "seed": 0, "dataset": "digits"}

REFERENCE: dict[str, Any] = {"inception_weights": None, "extractors": [], "statistics": None}


@pytest.fixture(autouse=True)
def _no_cached_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the weights that this machine may have in its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def prepared(
    train: np.ndarray, holdout: np.ndarray | None = None, labels: np.ndarray | None = None, name: str = "digits"
) -> Manifest:
    """The manifest of uint8 images (N,C,H,W); the last labels are those of the holdout."""
    parts = {"train": train} if holdout is None else {"train": train, "holdout": holdout}
    store = entry("data", 1, {"name": name, "sizes": [len(p) for p in parts.values()]})
    store.folder.mkdir(parents=True, exist_ok=True)
    files, start = [], 0
    for split, images in parts.items():
        arrays = {"images": images}
        if labels is not None:
            arrays["labels"] = labels[start : start + len(images)].astype(np.int64)
        for kind, array in arrays.items():
            files.append(f"{split}-{kind}.npy")
            np.save(store.folder / files[-1], array)
        start += len(images)
    classes = [] if labels is None else [str(c) for c in range(10)]
    return store.finish(files, {"classes": classes, "recipe": name, "holdout": 0 if holdout is None else len(holdout)})


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 handwritten digits, uint8 (N,1,8,8), and their labels, in random order (as they come, writers differ)."""
    bunch, order = load_digits(), np.random.default_rng(0).permutation(1797)
    return (bunch.images[order, None] * 15.9375).round().astype(np.uint8), bunch.target[order]


@pytest.fixture
def data() -> Manifest:
    """1500 digits to train on, 297 held out."""
    images, labels = digits()
    return prepared(images[:1500], images[1500:], labels)


@pytest.fixture
def trained(data: Manifest) -> Manifest:
    """The classifier of `data`."""
    classifier.run(SETTINGS, {}, Path("classifier.json"), data)
    return Manifest.load("classifier.json")


@pytest.fixture
def statistics(data: Manifest, trained: Manifest) -> Manifest:
    """The reference of `data`, without Inception."""
    reference.run(REFERENCE, {}, Path("reference.json"), data, trained)
    return Manifest.load("reference.json")


@pytest.fixture
def sampled() -> Callable[..., Manifest]:
    """Makes the manifest of a sample stage from {nfe: images}."""

    def make(cells: dict[int, np.ndarray]) -> Manifest:
        store = entry("sample", 1, {"cells": list(cells)})
        facts = []
        for nfe, images in cells.items():
            name = f"nfe{nfe:04d}/images.npy"
            (store.folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(store.folder / name, images)
            facts.append(
                {"nfe": nfe, "calls": float(nfe), "images": name, "count": len(images), "shape": list(images.shape[1:])}
            )
        return store.finish([c["images"] for c in facts], {"cells": facts})

    return make


@pytest.fixture
def random_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of random Inception weights that this test alone takes for the published ones."""
    _torchvision.ensure()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "random.pth"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **kwargs: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(extractors, "INCEPTION_SHA", sha256(path)[:8])
    return path
