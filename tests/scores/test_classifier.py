"""The classifier stage on real digits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Classifier
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadData
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import classifier
from pipeline_lib.scores.classifier_networks import NETWORKS
from tests.scores.conftest import SETTINGS, digits, prepared


def test_it_reads_held_out_digits(trained: Manifest) -> None:
    assert trained.facts["name"] == "classifier-digits"
    assert trained.facts["accuracy"] > 0.85
    assert trained.facts["classes"] == 10


def test_a_second_run_trains_nothing(trained: Manifest, data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(classifier, "train")
    classifier.run(SETTINGS, {}, Path("again.json"), data)
    assert Path("again.json").read_text() == Path("classifier.json").read_text()


def test_the_same_seed_gives_the_same_bytes(data: Manifest) -> None:
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    for name in ("a", "b"):
        options = Classifier(**{k: v for k, v in SETTINGS.items() if k != "dataset"} | {"steps": 3})
        classifier.save(Path(name), classifier.train(options, Prepared(data)))
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)


def test_other_pixels_are_another_classifier(trained: Manifest) -> None:
    images, labels = digits()
    other = prepared(255 - images[:100], None, labels[:100])
    classifier.run({**SETTINGS, "steps": 2}, {}, Path("other.json"), other)
    found = Manifest.load("other.json")
    assert found.fingerprint != trained.fingerprint
    assert found.facts["accuracy"] is None


def test_without_labels_it_learns_rotations(data: Manifest) -> None:
    images, _ = digits()
    scans = prepared(images[:1500], images[1500:], name="folder")
    classifier.run(SETTINGS | {"dataset": "scans"}, {}, Path("m.json"), scans)
    facts = Manifest.load("m.json").facts
    assert facts["name"] == "rotation-scans"
    assert facts["classes"] == 4
    assert facts["accuracy"] > 0.6


def test_a_turned_image_carries_its_turns() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    data = Prepared(prepared(image.repeat(4, 0)))
    images, targets = classifier.batch_of(data, torch.arange(4), torch.arange(4))
    back = [images[k].rot90(-k, (1, 2)) for k in range(4)]
    assert targets.tolist() == [0, 1, 2, 3]
    assert all(torch.equal(b, images[0]) for b in back)
    assert not torch.equal(images[1], images[0])


def test_rotations_need_square_images() -> None:
    data = prepared(np.zeros((4, 1, 8, 6), np.uint8))
    with pytest.raises(BadData, match=r"no labels and are 8x6.*square"):
        classifier.run(SETTINGS, {}, Path("m.json"), data)
    assert not Path("m.json").exists()


def test_it_is_named_after_the_dataset_and_trained_once(trained: Manifest, data: Manifest, monkeypatch) -> None:
    monkeypatch.delattr(classifier, "train")
    classifier.run(SETTINGS | {"dataset": "mine"}, {}, Path("mine.json"), data)
    found = Manifest.load("mine.json")
    assert (found.facts["name"], found.content) == ("classifier-mine", trained.content)


@pytest.mark.parametrize(
    ("name", "shape", "chosen"),
    [
        (None, (1, 8, 8), "small"),
        (None, (3, 28, 28), "small"),
        (None, (3, 32, 32), "resnet"),
        (None, (3, 16, 64), "resnet"),
        ("small", (3, 64, 64), "small"),
        ("resnet", (1, 8, 8), "resnet"),
    ],
)
def test_the_network_suits_the_resolution(name: str | None, shape: tuple[int, int, int], chosen: str) -> None:
    assert Classifier(network=name).chosen(shape) == chosen


def test_a_residual_network_learns_digits_and_comes_back(data: Manifest) -> None:
    classifier.run(SETTINGS | {"network": "resnet", "channels": 16, "steps": 200}, {}, Path("r.json"), data)
    found = Manifest.load("r.json")
    assert found.facts["accuracy"] > 0.85
    network = classifier.load(found.file(classifier.WEIGHTS))
    assert classifier.accuracy_of(network, Prepared(data).holdout()) == found.facts["accuracy"]


@pytest.mark.parametrize("network", ["small", "resnet"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 48, 64)])
def test_every_shape_gives_the_features_asked_for(shape: tuple[int, int, int], network: str) -> None:
    network = NETWORKS[network](shape, channels=4, features=6, classes=3)
    x = torch.randn(2, *shape)
    assert network.features(x).shape == (2, 6)
    assert network(x).shape == (2, 3)


def test_damaged_weights_are_bad_data(trained: Manifest) -> None:
    path = Path(trained.folder) / classifier.WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadData, match="cannot be read"):
        classifier.load(path)
    with pytest.raises(BadData, match="not what it was"):
        trained.file(classifier.WEIGHTS)
