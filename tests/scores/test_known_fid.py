"""`check fid`: what it says without weights and data, and that it compares what it says."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.records.store import entry
from pipeline_lib.scores import extractors, known_fid
from pipeline_lib.scores.known_fid import Known


def cifar10(split: str, images: np.ndarray) -> None:
    store = entry("data", 1, {"split": split})
    store.folder.mkdir(parents=True)
    np.save(store.folder / "train-images.npy", images)
    store.finish(["train-images.npy"], {"recipe": "cifar10", "holdout": 0, "notes": {"split": split}})


def test_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    cifar10("train", np.zeros((2, 3, 32, 32), np.uint8))
    assert main(["check", "fid"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "weights-inception-2015-12-05-6726825d.pth" in lines[0]
    assert "CIFAR-10, test split, is not prepared here" in lines[1]
    assert [line.split("  ")[0] for line in lines[2:]] == ["not checked", "not checked"]
    assert "3.1508" in lines[2]
    assert "10.3233274" in lines[3]


def test_it_compares_the_first_images_of_both_splits(
    random_inception: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 3, 3, 32, 32), dtype=np.uint8)
    images[0, 2] = images[1, 2]  # the first two of both splits differ, all three do less
    for split, some in zip(("train", "test"), images, strict=True):
        cifar10(split, some)
    monkeypatch.setattr(known_fid, "inception_weights", lambda _: extractors.inception_weights(str(random_inception)))
    assert known_fid.check(Known(2, 1.0, 1e-3, "")) is False
    few = float(capsys.readouterr().out.split(": ")[1].split(" here")[0])
    assert known_fid.check(Known(None, few, 1e-3, "")) is False
    monkeypatch.setattr(known_fid, "KNOWN", (Known(2, few, 1e-3, "measured above"),))
    assert main(["check", "fid"]) == 0
    assert "pass  FID(CIFAR-10 first 2 of train, first 2 of test)" in capsys.readouterr().out
