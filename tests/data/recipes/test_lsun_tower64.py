import io
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image

from pipeline_lib.data import images
from pipeline_lib.data.recipes import Source, lsun_tower64
from pipeline_lib.exits import BadData
from tests.data import datasets


def run(**changes: Any) -> Source:
    options = lsun_tower64.Options(**{"path": "lsun", "expected": None, **changes})
    return lsun_tower64.prepare(options, Path())


def means(data: bytes) -> np.ndarray:
    """Short side 256: means of 4x4, then the central 64x64."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    height, width = (n // 4 for n in pixels.shape[:2])
    small = pixels.reshape(height, 4, width, 4, 3).mean((1, 3))
    top, left = (height - 64) // 2, (width - 64) // 2
    return small[top : top + 64, left : left + 64].transpose(2, 0, 1)


@pytest.mark.parametrize("cores", [1, 2])
def test_pixels_in_the_order_of_the_keys(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "cores", lambda: cores)
    monkeypatch.setattr(images, "BLOCK_FILES", 2)
    values = datasets.lsun(Path("lsun"))
    source = run()
    np.testing.assert_allclose(np.load(source.images), [means(v) for v in values.values()], atol=1)
    assert (source.labels, source.notes["split"]) == (None, "train")
    assert len(np.load(run(path="lsun/tower_train_lmdb").images)) == 5


def test_a_damaged_value_is_named_by_its_key() -> None:
    datasets.lsun(Path("lsun"))
    with lmdb.open("lsun/tower_train_lmdb") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"f" * 40, b"no image")
    with pytest.raises(
        BadData, match=r"1 of the 6 images .* the first is lsun/tower_train_lmdb \(key f{40}\): it is empty"
    ):
        run()
    assert run(on_damaged="skip").notes["skipped"] == [
        {"file": "f" * 40, "reason": "it is empty, damaged, or no image"}
    ]


def test_keys_may_be_any_bytes() -> None:
    values = datasets.lsun(Path("lsun"), 1)
    (value,) = values.values()
    with lmdb.open("lsun/tower_train_lmdb") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"\xff\x00\xfe", value)
    found = np.load(run().images)
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize("left", [0.6, 0.2])
def test_a_cut_database_is_refused_and_kills_nothing(left: float) -> None:
    datasets.lsun(Path("lsun"))
    path = Path("lsun/tower_train_lmdb/data.mdb")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    with pytest.raises(BadData, match=r"data.mdb is cut short \([\d,]+ of [\d,]+ bytes\)"):
        run()


def test_what_is_no_database() -> None:
    Path("lsun/tower_train_lmdb").mkdir(parents=True)
    with pytest.raises(BadData, match=r"holds no data.mdb"):
        run()
    Path("lsun/tower_train_lmdb/data.mdb").write_bytes(b"<html>" * 2000)
    with pytest.raises(BadData, match="cannot be read as a database"):
        run()


def test_the_published_count_is_expected() -> None:
    datasets.lsun(Path("lsun"))
    with pytest.raises(BadData, match="holds 5 images and 708,264 are expected"):
        run(expected="official")
