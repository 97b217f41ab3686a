import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.data import images
from pipeline_lib.data.recipes.image_folder import Options, list_images, prepare, signature
from pipeline_lib.exits import BadData
from tests.data.pictures import picture, put, put_truncated


def options(**changes: Any) -> Options:
    return Options.model_validate({"path": "images", "resolution": 12, **changes})


@pytest.fixture
def folder() -> Path:
    """Two classes with files of many kinds, and things that are passed over."""
    root = Path("images")
    put(root / "dog" / "10.jpg", picture(seed=1))
    put(root / "dog" / "2.PNG", picture(seed=2), format="PNG")
    put(root / "cat" / "deep" / "a.png", picture(seed=3))
    put(root / "cat" / "b.jpg", picture(seed=4).convert("CMYK"))
    put(root / ".thumbnails" / "x.png")
    (root / "cat" / "._b.jpg").write_bytes(b"resource fork")
    (root / "README.txt").write_text("about the images")
    return root


def pixels(source: Any) -> np.ndarray:
    return np.load(source.images)


def test_images_come_in_the_order_of_class_and_name(folder: Path) -> None:
    assert list_images(folder) == ["cat/b.jpg", "cat/deep/a.png", "dog/10.jpg", "dog/2.PNG"]
    source = prepare(options(), Path())
    assert source.classes == ["cat", "dog"]
    assert source.labels is not None
    assert (source.labels.tolist(), source.labels.dtype) == ([0, 0, 1, 1], np.int64)
    expected = [np.asarray(Image.open(folder / n).convert("RGB")).transpose(2, 0, 1) for n in list_images(folder)]
    np.testing.assert_array_equal(pixels(source), expected)
    assert source.notes["pixel_formats"] == {"CMYK": 1, "RGB": 3}
    assert source.notes["skipped"] == []


def test_images_directly_in_the_folder_have_no_labels() -> None:
    put(Path("images/a.png"))
    source = prepare(options(channels=1), Path())
    assert (source.labels, source.classes, pixels(source).shape) == (None, [], (1, 1, 12, 12))


def test_a_split_is_a_sub_folder() -> None:
    put(Path("images/train/a/x.png"))
    put(Path("images/test/a/y.png"))
    assert prepare(options(split="train"), Path()).classes == ["a"]
    with pytest.raises(BadData, match=r"are splits and no classes \(test, train\); name one with 'split'"):
        prepare(options(), Path())


def test_processes_give_what_a_plain_loop_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        put(folder / "dog" / f"more{seed}.jpg", picture(30, 20, seed))
    put_truncated(folder / "dog" / "more3.jpg")
    monkeypatch.setattr(images, "cores", lambda: 1)
    alone = prepare(options(on_damaged="skip"), Path())
    expected, labels = pixels(alone), alone.labels
    monkeypatch.setattr(images, "BLOCK_FILES", 2)
    monkeypatch.setattr(images, "cores", lambda: 3)
    together = prepare(options(on_damaged="skip"), Path())
    np.testing.assert_array_equal(pixels(together), expected)
    np.testing.assert_array_equal(together.labels, labels)
    assert together.notes == alone.notes
    assert len(expected) == 23


def test_damaged_images_are_refused_with_first_file_and_count(folder: Path) -> None:
    put_truncated(folder / "dog" / "3.jpg")
    (folder / "dog" / "4.jpg").write_bytes(b"")
    with pytest.raises(BadData) as caught:
        prepare(options(), Path())
    sentence = str(caught.value)
    assert sentence.startswith("2 of the 6 images read cannot be used, the first is images/dog/3.jpg: it is damaged")
    assert "'on_damaged: skip'" in sentence


def test_damaged_images_can_be_left_out_and_are_listed(folder: Path) -> None:
    put_truncated(folder / "cat" / "a.jpg")
    source = prepare(options(on_damaged="skip"), Path())
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert len(pixels(source)) == 4
    (skipped,) = source.notes["skipped"]
    assert skipped["file"] == "cat/a.jpg"
    assert "truncated" in skipped["reason"]


def test_refusing_ends_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BLOCK_FILES", 1)
    monkeypatch.setattr(images, "ENOUGH", 2)
    monkeypatch.setattr(images, "cores", lambda: 1)
    with pytest.raises(
        BadData, match=r"2 of the 2 images read cannot be used, the first is images/cat/b.jpg: it is 12x12"
    ):
        prepare(options(resolution=64), Path())


def test_skipping_everything_is_refused(folder: Path) -> None:
    with pytest.raises(BadData, match=r"4 of the 4 images read cannot be used.*check 'path' and the recipe"):
        prepare(options(resolution=64, on_damaged="skip"), Path())


def test_unclear_folders() -> None:
    with pytest.raises(BadData, match="the folder images does not exist; correct 'path' and 'split'"):
        prepare(options(), Path())
    with pytest.raises(BadData, match=r"the folder images does not exist; correct 'path', or put"):
        prepare(options(split="train"), Path())
    Path("images").mkdir()
    with pytest.raises(BadData, match=r"there are no images in images; it must hold files that end in \.jpg"):
        prepare(options(), Path())
    Path("images/train.tar.xz").touch()
    with pytest.raises(BadData, match=r"there are no images in images; unpack train.tar.xz\."):
        prepare(options(), Path())
    with pytest.raises(BadData, match=r"images/train.tar.xz is a file and must be a folder; unpack it"):
        prepare(options(path="images/train.tar.xz"), Path())
    put(Path("images/a.png"))
    put(Path("images/cat/b.png"))
    with pytest.raises(BadData, match=r"holds images directly \(a.png\) and in folders \(cat/b.png\)"):
        prepare(options(), Path())


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_to_a_folder_around_it_is_named(target: str) -> None:
    put(Path("images/cat/a.png"))
    Path("images/cat/loop").symlink_to(target)
    with pytest.raises(BadData, match=r"images/cat/loop\S* is a link to a folder that it lies in; remove the link"):
        prepare(options(), Path())


def test_a_linked_folder_is_read_and_may_be_linked_twice() -> None:
    put(Path("elsewhere/a.png"))
    Path("images").mkdir()
    for name in ("cat", "dog"):
        (Path("images") / name).symlink_to("../elsewhere")
    assert prepare(options(), Path()).classes == ["cat", "dog"]


def test_the_signature_sees_what_would_be_read(folder: Path) -> None:
    first = signature(options())
    (folder / "README.txt").write_text("other words")
    assert signature(options()) == first
    seen = {first}
    os.utime(folder / "dog" / "10.jpg", ns=(1, 1))
    seen.add(signature(options()))
    (folder / "dog" / "10.jpg").rename(folder / "dog" / "11.jpg")
    seen.add(signature(options()))
    put(folder / "cat" / "new.png")
    seen.add(signature(options()))
    assert len(seen) == 4
