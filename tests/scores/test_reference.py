"""The reference stage: moments over all training images, found again by content."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.data.prepared import Prepared
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import extractors, reference
from pipeline_lib.scores.frechet import Moments
from tests.scores.conftest import REFERENCE, digits, prepared


def test_it_takes_all_training_images_and_no_other(statistics: Manifest, data: Manifest, trained: Manifest) -> None:
    name = trained.facts["name"]
    found = Moments.load(statistics.file(f"{name}.npz"))
    images = torch.from_numpy(np.array(Prepared(data).images))
    features = next(extractors.from_classifier(trained, torch.device("cpu")).features([images]))
    np.testing.assert_allclose(found.mean, features.double().mean(0), atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(features.double().numpy(), rowvar=False), atol=1e-5)
    assert found.count == statistics.facts["images"] == 1500
    assert (statistics.facts["held_out"], statistics.facts["split"]) == (297, "train")
    assert statistics.facts["extractors"] == {name: {"sha": trained.files["classifier.safetensors"], "dim": 16}}


def test_missing_weights_are_pending_and_say_how_to_get_them(statistics: Manifest) -> None:
    note = statistics.facts["pending"]["inception-v3-compat"]
    assert "weights-inception-2015-12-05-6726825d.pth" in note
    assert "scores.inception_weights" in note


def test_a_second_run_computes_nothing(
    statistics: Manifest, data: Manifest, trained: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(extractors.Extractor, "moments")
    reference.run(REFERENCE, {}, Path("again.json"), data, trained)
    assert Path("again.json").read_text() == Path("reference.json").read_text()


def test_inception_is_identified_by_its_weights_and_not_by_their_path(
    random_inception: Path, trained: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = digits()
    small = prepared(images[:2], None, labels[:2])
    reference.run(REFERENCE | {"inception_weights": str(random_inception)}, {}, Path("a.json"), small, trained)
    found = Manifest.load("a.json")
    assert found.facts["pending"] == {}
    assert found.facts["extractors"]["inception-v3-compat"] == {"sha": sha256(random_inception), "dim": 2048}
    assert Moments.load(found.file("inception-v3-compat.npz")).count == 2
    moved = random_inception.rename(tmp_path / "moved.pth")
    monkeypatch.delattr(extractors.Extractor, "moments")
    reference.run(REFERENCE | {"inception_weights": str(moved)}, {}, Path("b.json"), small, trained)
    assert Path("b.json").read_text() == Path("a.json").read_text()
    assert "moved" not in Path("b.json").read_text()
