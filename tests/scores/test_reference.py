"""The reference stage: moments over all training images, found again by content."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadConfig, BadData
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
    about = statistics.facts["extractors"][name]
    assert (about["sha"], about["dim"], about["kept"]) == (trained.files["classifier.safetensors"], 16, 1500)
    kept = np.load(statistics.file(f"{name}-features.npy"))
    rows = lambda x: x[np.lexsort(x.T)]  # noqa: E731
    np.testing.assert_allclose(rows(kept), rows(features.numpy()), atol=1e-5)
    assert not np.allclose(kept, features.numpy())  # any first n are a fair sample


def test_missing_weights_are_pending_and_say_how_to_get_them(statistics: Manifest) -> None:
    note = statistics.facts["pending"]["inception-v3-compat"]
    assert "weights-inception-2015-12-05-6726825d.pth" in note
    assert "scores.inception_weights" in note


def test_a_second_run_computes_nothing(
    statistics: Manifest, data: Manifest, trained: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(extractors.Extractor, "features")
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
    about = found.facts["extractors"]["inception-v3-compat"]
    assert (about["sha"], about["dim"]) == (sha256(random_inception), 2048)
    assert Moments.load(found.file("inception-v3-compat.npz")).count == 2
    moved = random_inception.rename(tmp_path / "moved.pth")
    monkeypatch.delattr(extractors.Extractor, "features")
    reference.run(REFERENCE | {"inception_weights": str(moved)}, {}, Path("b.json"), small, trained)
    assert Path("b.json").read_text() == Path("a.json").read_text()
    assert "moved" not in Path("b.json").read_text()


def test_the_features_of_large_sets_are_those_of_a_random_part(
    data: Manifest, trained: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "KEPT", 100)
    reference.run(REFERENCE, {}, Path("r.json"), data, trained)
    found, name = Manifest.load("r.json"), trained.facts["name"]
    assert np.load(found.file(f"{name}-features.npy")).shape == (100, 16)
    assert Moments.load(found.file(f"{name}.npz")).count == 1500
    assert len(np.load(found.file(f"{name}-held-out.npy"))) == 100


def test_held_out_distances_are_those_to_the_nearest_training_image(statistics: Manifest, trained: Manifest) -> None:
    name, images = trained.facts["name"], torch.from_numpy(digits()[0])
    features = next(extractors.from_classifier(trained, torch.device("cpu")).features([images])).double()
    nearest = torch.cdist(features[1500:], features[:1500]).amin(1)
    np.testing.assert_allclose(np.load(statistics.file(f"{name}-held-out.npy")), nearest, rtol=1e-4)


def test_another_key_of_the_dataset_is_another_reference(data: Manifest, trained: Manifest) -> None:
    for key in ("digits", "mine"):
        named = replace(trained, facts={**trained.facts, "name": f"classifier-{key}"})
        reference.run(REFERENCE, {}, Path(f"{key}.json"), data, named)
        assert list(Manifest.load(f"{key}.json").facts["extractors"]) == [f"classifier-{key}"]


def test_published_statistics_take_the_place_of_those_of_the_training_images(
    random_inception: Path, trained: Manifest
) -> None:
    small = prepared(digits()[0][:4])
    mean, covariance = np.linspace(0, 1, 2048), np.diag(np.linspace(1, 2, 2048))
    np.savez("theirs.npz", mu=mean.astype(np.float32), sigma=covariance)
    asked = REFERENCE | {"inception_weights": str(random_inception), "statistics": "theirs.npz"}
    reference.run(asked, {}, Path("r.json"), small, trained)
    found = Manifest.load("r.json")
    moments = Moments.load(found.file("inception-v3-compat.npz"))
    np.testing.assert_allclose(moments.mean, mean, atol=1e-7)
    np.testing.assert_array_equal(moments.covariance, covariance)
    assert found.facts["extractors"]["inception-v3-compat"]["published"] == sha256(Path("theirs.npz"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, r"mu \[3\] and sigma \[3, 3\], but the extractor has 5 features"),
        ({"mu": np.zeros(5)}, "holds no 'mu' and 'sigma'"),
        (b"mu and sigma, as text\n", r"is no \.npz of statistics; fetch it again\.$"),
        (b"", r"is no \.npz of statistics; fetch it again\.$"),
        ({"mu": np.full(5, np.nan), "sigma": np.eye(5)}, "numbers that are not finite"),
    ],
)
def test_other_files_are_no_statistics(content: dict[str, np.ndarray] | bytes, sentence: str) -> None:
    if isinstance(content, bytes):
        Path("s.npz").write_bytes(content)
    else:
        np.savez("s.npz", **content)
    with pytest.raises(BadData, match=sentence):
        reference.statistics(Path("s.npz"), 5)


def test_statistics_that_are_not_there_are_a_wrong_configuration(data: Manifest, trained: Manifest) -> None:
    with pytest.raises(BadConfig, match=r"statistics: there is no file nowhere\.npz"):
        reference.run(REFERENCE | {"statistics": "nowhere.npz"}, {}, Path("r.json"), data, trained)


def test_extractors_without_weights_are_pending(data: Manifest, trained: Manifest) -> None:
    reference.run(REFERENCE | {"extractors": ["dinov2-vit-b-14", "clip-vit-b-32"]}, {}, Path("r.json"), data, trained)
    pending = Manifest.load("r.json").facts["pending"]
    assert "checkpoints/dinov2_vitb14_pretrain.pth and the folder" in pending["dinov2-vit-b-14"]
    assert "checkpoints/clip-vit-b-32-40d36571" in pending["clip-vit-b-32"]
