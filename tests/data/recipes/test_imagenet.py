from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.data import batches
from pipeline_lib.data.recipes import Source, imagenet32, imagenet64, imagenet128
from pipeline_lib.exits import BadData
from tests.data import datasets
from tests.data.pictures import put


def run(recipe: Any, **changes: Any) -> Source:
    return recipe.prepare(recipe.Options(**{"path": "data", "expected": None, **changes}), Path())


@pytest.mark.parametrize("kind", ["npz", "pickle"])
@pytest.mark.parametrize(("recipe", "side"), [(imagenet32, 32), (imagenet64, 64)])
def test_the_new_release(kind: str, recipe: Any, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", 3 * 3 * side * side)  # so that a batch of 4 is read in two blocks
    datasets.imagenet_batches(Path("data"), side, kind)
    source = run(recipe)
    images = np.load(source.images)
    for place in (0, 17, 39):
        row = datasets.pixels(4, side, place // 4)[place % 4]
        red, green, blue = np.split(row, 3)
        expected = np.dstack([plane.reshape(side, side) for plane in (red, green, blue)])
        np.testing.assert_array_equal(images[place].transpose(1, 2, 0), expected)
    assert images.shape == (40, 3, side, side)
    assert source.labels is not None
    assert source.labels.tolist() == [(seed * 131 + 7 * i) % 1000 for seed in range(10) for i in range(4)]
    assert (len(source.classes), source.notes["release"], source.notes["duplicates"]) == (1000, "new", 0)
    np.testing.assert_array_equal(
        np.load(run(recipe, split="val").images).reshape(4, -1), datasets.pixels(4, side, seed=10)
    )


def test_the_old_release_has_no_labels() -> None:
    datasets.imagenet_png(Path("data"), 32)
    source = run(imagenet32, release="old", split="val")
    expected = [datasets.opened(p).transpose(2, 0, 1) for p in sorted(Path("data/valid_32x32").iterdir())]
    np.testing.assert_array_equal(np.load(source.images), expected)
    assert (source.labels, source.notes["release"], source.notes["split"]) == (None, "old", "val")


def test_releases_are_told_apart() -> None:
    datasets.imagenet_png(Path("data"), 32)
    with pytest.raises(BadData, match=r"data holds train_32x32, which belongs to the old release.*'release: old'"):
        run(imagenet32)
    datasets.imagenet_batches(Path("new"), 32)
    with pytest.raises(BadData, match=r"new holds train_data_batch_1.npz, which belongs to the new release"):
        run(imagenet32, path="new", release="old")


def test_incomplete_and_foreign_batches() -> None:
    root = datasets.imagenet_batches(Path("data"), 32)
    with pytest.raises(BadData, match="the 10 batches in data holds 40 images and 1,281,167 are expected"):
        run(imagenet32, expected="official")
    with pytest.raises(BadData, match=r"holds uint8 \(4, 3072\), and images of 64x64 are uint8 \(N, 12288\)"):
        run(imagenet64)
    (root / "train_data_batch_3.npz").unlink()
    with pytest.raises(BadData, match=r"lacks 1 of the 10 batches, the first is train_data_batch_3"):
        run(imagenet32, expected="official")
    assert len(np.load(run(imagenet32, expected=36).images)) == 36
    np.savez(root / "train_data_batch_3.npz", data=datasets.pixels(4, 32), labels=[1, 2, 3])
    with pytest.raises(BadData, match="holds 3 labels for 4 images"):
        run(imagenet32)
    np.savez(root / "train_data_batch_3.npz", data=datasets.pixels(4, 32), labels=[0, 1, 2, 3])
    with pytest.raises(BadData, match=r"or others than 1..1000"):
        run(imagenet32)


@pytest.mark.parametrize("cut", [100, 6000])
def test_a_cut_batch_is_refused(cut: int) -> None:
    path = datasets.imagenet_batches(Path("data"), 32) / "train_data_batch_7.npz"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BadData, match=r"data/train_data_batch_7.npz is cut short or damaged"):
        run(imagenet32)


def test_a_flipped_bit_in_a_batch_is_found() -> None:
    path = datasets.imagenet_batches(Path("data"), 32) / "train_data_batch_7.npz"
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)
    with pytest.raises(BadData, match=r"train_data_batch_7.npz is cut short or damaged .*CRC"):
        run(imagenet32)


def expected_128(path: Path) -> np.ndarray:
    """guided-diffusion's rule, in other words: how often a side can be halved is counted first."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    times = max(0, int(np.log2(min(rgb.size) / 128)))
    for _ in range(times):
        rgb = rgb.resize((rgb.size[0] // 2, rgb.size[1] // 2), Image.Resampling.BOX)
    factor = 128 / min(rgb.size)
    rgb = rgb.resize((round(rgb.size[0] * factor), round(rgb.size[1] * factor)), Image.Resampling.BICUBIC)
    pixels = np.asarray(rgb)
    y, x = ((s - 128) // 2 for s in pixels.shape[:2])
    return pixels[y : y + 128, x : x + 128].transpose(2, 0, 1)


def test_the_tree_of_classes() -> None:
    root = datasets.imagenet_tree(Path("data"))
    source = run(imagenet128)
    files = sorted((root / "train").glob("*/*"))
    images = np.load(source.images)
    np.testing.assert_array_equal(images, [expected_128(path) for path in files])
    quarters = datasets.opened(files[0]).reshape(128, 4, 128, 4, 3).mean((1, 3))  # 512x512: halved twice
    np.testing.assert_allclose(images[0], quarters.transpose(2, 0, 1), atol=2)  # four passes, each rounded
    assert source.labels is not None
    assert (source.labels.tolist(), source.classes) == ([0] * 3 + [1] * 5, ["n01440764", "n01443537"])
    assert source.notes["pixel_formats"] == {"CMYK": 1, "L": 1, "RGB": 6}


def test_adm_resizes_the_tree_to_64_by_the_same_rule() -> None:
    root = datasets.imagenet_tree(Path("data"))
    source = run(imagenet64, release="adm")
    first = datasets.opened(root / "train" / "n01440764" / "n01440764_0.JPEG")
    means = first.reshape(64, 8, 64, 8, 3).mean((1, 3))  # 512x512: halved three times
    np.testing.assert_allclose(np.load(source.images)[0], means.transpose(2, 0, 1), atol=3)
    assert (len(source.classes), source.notes["split"]) == (2, "train")
    with pytest.raises(BadData, match=r"data holds n01440764, which belongs to the adm release"):
        run(imagenet64)


def test_a_flat_validation_folder_has_no_labels_and_is_refused() -> None:
    put(Path("data/val/ILSVRC2012_val_00000001.JPEG"), format="JPEG")
    with pytest.raises(BadData, match="lie in no class folders"):
        run(imagenet128, split="val")
