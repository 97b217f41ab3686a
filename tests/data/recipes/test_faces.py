from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline_lib.data import images
from pipeline_lib.data.recipes import Source, _faces, celebahq256, ffhq128, ffhq256
from pipeline_lib.exits import BadData
from tests.data import datasets
from tests.data.pictures import picture, put


def run(recipe: Any, **changes: Any) -> Source:
    return recipe.prepare(recipe.Options(**{"path": "data", "expected": None, **changes}), Path())


def test_thumbnails_come_in_the_order_of_their_numbers() -> None:
    datasets.ffhq(Path("data"))
    source = run(ffhq128)
    files = sorted(Path("data/thumbnails128x128").glob("*/*.png"), key=lambda p: int(p.stem))
    np.testing.assert_array_equal(np.load(source.images), [datasets.opened(p).transpose(2, 0, 1) for p in files])
    assert (source.labels, source.classes) == (None, [])
    with pytest.raises(BadData, match="holds 4 images and 70,000 are expected"):
        run(ffhq128, expected="official")


def test_parts_are_the_publishers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_faces.part_count(part) for part in ("all", "train", "validation")] == [70_000, 60_000, 10_000]
    monkeypatch.setattr(_faces, "FFHQ_PARTS", {"train": slice(3), "validation": slice(3, None)})
    datasets.ffhq(Path("data"))
    parts = [np.load(run(ffhq128, split=part).images) for part in ("train", "validation")]
    assert [len(p) for p in parts] == [3, 1]
    last = Path("data/thumbnails128x128/01000/01800.png")
    np.testing.assert_array_equal(parts[1][0], datasets.opened(last).transpose(2, 0, 1))


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(("recipe", "side"), [(ffhq128, 128), (ffhq256, 1024)])
def test_files_are_compared_with_the_publishers_list(
    recipe: Any, side: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "cores", lambda: cores)
    monkeypatch.setattr(images, "BLOCK_FILES", 2)
    root = datasets.ffhq(Path("data"), side)
    assert run(recipe).notes["checksums"].startswith("not compared")
    unlisted = recipe.signature(recipe.Options(path="data"))
    monkeypatch.setattr(_faces, "LISTING_MD5", datasets.ffhq_list(root))
    assert recipe.signature(recipe.Options(path="data")) != unlisted
    for path in ("data", f"data/{recipe.FOLDER}"):
        assert run(recipe, path=path).notes["checksums"] == "every file compared with ffhq-dataset-v2.json"
    changed = put(root / recipe.FOLDER / "00000" / "00600.png", picture(side, side, seed=9))
    with pytest.raises(BadData, match=r"1 of the 4 .*/00000/00600.png: its MD5 is not the one in ffhq-dataset-v2"):
        run(recipe)
    assert run(recipe, on_damaged="skip").notes["skipped"][0]["file"] == "00000/00600.png"
    changed.rename(changed.with_name("70001.png"))
    with pytest.raises(BadData, match=r"70001.png: its MD5 is not the one"):
        run(recipe)
    (root / "ffhq-dataset-v2.json").write_text("{")
    with pytest.raises(BadData, match=r"data/ffhq-dataset-v2.json is cut short or not the published file"):
        run(recipe)


def test_resized_images_are_not_those_of_the_list() -> None:
    put(Path("data/00000.png"), picture(256, 256))
    Path("ffhq-dataset-v2.json").write_text("{}")
    assert run(ffhq256).notes["checksums"].startswith("not compared")


def test_numbers_without_leading_zeros_are_in_their_order() -> None:
    for number in (0, 2, 10, 9):
        put(Path(f"data/{number}.png"), picture(256, 256, seed=number))
    found = np.load(run(celebahq256).images)
    expected = [np.asarray(picture(256, 256, seed=number)).transpose(2, 0, 1) for number in (0, 2, 9, 10)]
    np.testing.assert_array_equal(found, expected)


def test_thumbnails_of_another_size_and_twice_the_same_number() -> None:
    datasets.ffhq(Path("data"))
    put(Path("data/thumbnails128x128/00003.png"), picture(64, 64))
    with pytest.raises(BadData, match=r"00003.png: it is 64x64 pixels and must be 128x128"):
        run(ffhq128)
    put(Path("data/thumbnails128x128/00600.png"), picture(128, 128))
    with pytest.raises(BadData, match=r"holds the same image twice \(00000/00600.png and 00600.png\)"):
        run(ffhq128)


@pytest.mark.parametrize("recipe", [ffhq256, celebahq256])
def test_large_images_are_resized_as_said_and_recorded(recipe: Any) -> None:
    path = put(Path("data/1.png"), picture(1024, 1024))
    put(Path("data/2.png"), picture(256, 256, seed=1))
    image = torch.from_numpy(datasets.opened(path).copy()).permute(2, 0, 1)[None].float()
    for resize, antialias in (("cv2", False), ("bilinear", True)):
        source = run(recipe, resize=resize)
        expected = functional.interpolate(image, (256, 256), mode="bilinear", antialias=antialias)[0]
        found = np.load(source.images)
        np.testing.assert_allclose(found[0], expected.numpy(), atol=1.01)
        np.testing.assert_array_equal(found[1], datasets.opened(Path("data/2.png")).transpose(2, 0, 1))
        assert ("no antialiasing" if resize == "cv2" else "bilinear filter (antialiased)") in source.notes["size"]


def test_small_faces_are_not_enlarged() -> None:
    put(Path("data/1.png"), picture(200, 200))
    for resize in ("cv2", "box"):
        with pytest.raises(BadData, match="it is 200x200 pixels"):
            run(celebahq256, resize=resize)
