import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.data.recipes import cifar10
from pipeline_lib.data.recipes.cifar10 import Options, prepare
from pipeline_lib.exits import BadData
from tests.data import datasets


def options(**changes: Any) -> Options:
    return Options.model_validate({"path": "data", **changes})


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cifar10, "MD5", datasets.cifar10(Path("data")))
    return Path("data")


def unpacked(root: Path) -> Path:
    shutil.unpack_archive(root / cifar10.ARCHIVE, root)
    (root / cifar10.ARCHIVE).unlink()
    return root / cifar10.FOLDER


def test_the_checksums_are_those_of_torchvision() -> None:
    """Read as text: importing torchvision may need a matching build of torch."""
    import importlib.util

    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    text = (Path(spec.submodule_search_locations[0]) / "datasets" / "cifar.py").read_text()
    assert cifar10.URL in text
    assert all(f'"{name}"' in text and f'"{md5}"' in text for name, md5 in cifar10.MD5.items())


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_pixels_labels_and_classes_from_archive_and_folder(published: Path, folder: bool, itself: bool) -> None:
    place = unpacked(published) if folder else published / cifar10.ARCHIVE
    source = prepare(options(path=str(place if itself else published)), Path())
    images = np.load(source.images)
    expected = np.stack(
        [
            np.dstack([row[:1024].reshape(32, 32), row[1024:2048].reshape(32, 32), row[2048:].reshape(32, 32)])
            for seed in range(5)
            for row in datasets.pixels(3, 32, seed)
        ]
    )
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), expected)
    assert source.labels is not None
    assert source.labels.tolist() == [(3 * seed + i) % 10 for seed in range(5) for i in range(3)]
    assert source.classes == datasets.CLASSES
    assert (source.notes["split"], source.notes["duplicates"]) == ("train", 0)


def test_the_test_split_is_another_batch(published: Path) -> None:
    images = np.load(prepare(options(split="test"), Path()).images)
    np.testing.assert_array_equal(images.reshape(3, -1), datasets.pixels(3, 32, 5))


def test_a_changed_batch_is_refused(published: Path) -> None:
    batch = unpacked(published) / "data_batch_2"
    data = bytearray(batch.read_bytes())
    data[500] ^= 1
    batch.write_bytes(data)
    with pytest.raises(BadData, match=r"data_batch_2 is cut short or not the published file"):
        prepare(options(), Path())
    batch.unlink()
    with pytest.raises(BadData, match=r"data_batch_2 cannot be read \(.*No such file"):
        prepare(options(), Path())


def test_a_cut_archive_is_refused(published: Path) -> None:
    archive = published / cifar10.ARCHIVE
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(BadData, match="is cut short or not the published file"):
        prepare(options(), Path())


def test_without_data_and_download_it_says_what_to_do() -> None:
    with pytest.raises(BadData, match=r"data holds neither cifar-10-batches-py nor .*'download: true'"):
        prepare(options(), Path())


def test_it_is_downloaded_where_that_is_asked_for(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = published / cifar10.ARCHIVE
    shutil.move(archive, "elsewhere")
    monkeypatch.setattr(cifar10, "URL", Path("elsewhere").absolute().as_uri())
    source = prepare(options(download=True), Path())
    assert len(np.load(source.images)) == 15
    assert hashlib.md5(archive.read_bytes()).hexdigest() == cifar10.MD5[cifar10.ARCHIVE]
