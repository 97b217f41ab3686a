"""The three crops, against torch's interpolation on slices of the decoded JPEGs."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline_lib.config.base import part
from pipeline_lib.data.recipes import Source, celeba64_ddim, celeba64_ddpmip, celeba64_scoresde
from pipeline_lib.exits import BadConfig, BadData
from tests.data import datasets
from tests.data.pictures import picture, put, put_truncated

ALL = (celeba64_ddim, celeba64_scoresde, celeba64_ddpmip)
TRAIN = ["000001.jpg", "000003.jpg", "000005.jpg", "000006.jpg"]


@pytest.fixture
def root() -> Path:
    return datasets.celeba(Path("celeba"))


def run(recipe: ModuleType, **changes: Any) -> Source:
    options = recipe.Options(**{"path": "celeba", "expected": None, "split": "train", **changes})
    return recipe.prepare(options, Path())


def resized(image: np.ndarray, antialias: bool) -> np.ndarray:
    floats = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    return functional.interpolate(floats, (64, 64), mode="bilinear", antialias=antialias)[0].numpy()


@pytest.mark.parametrize(
    ("recipe", "rows", "columns", "antialias"),
    [
        (celeba64_ddim, slice(57, 185), slice(25, 153), True),  # ddim: cx = 89, cy = 121, 64 to each side
        (celeba64_scoresde, slice(39, 179), slice(19, 159), True),  # score_sde: (218 - 140) // 2, (178 - 140) // 2
        (celeba64_ddpmip, slice(None), slice(None), False),
    ],
)
def test_pixels(root: Path, recipe: ModuleType, rows: slice, columns: slice, antialias: bool) -> None:
    images = np.load(run(recipe).images)
    faces = [datasets.opened(root / "img_align_celeba" / name) for name in TRAIN]
    expected = [resized(face[rows, columns], antialias) for face in faces]
    assert images.shape == (4, 3, 64, 64)
    np.testing.assert_allclose(images, expected, atol=1.01)


def test_the_three_are_different_datasets(root: Path) -> None:
    images = [np.load(run(recipe).images).astype(int) for recipe in ALL]
    for i in range(3):
        assert np.abs(images[i] - images[(i + 1) % 3]).mean() > 2


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("valid", 1), ("test", 1), ("all", 6)])
def test_splits_follow_the_partition(root: Path, split: str, count: int) -> None:
    source = run(celeba64_ddim, split=split)
    assert len(np.load(source.images)) == count
    assert (source.labels, source.notes["split"]) == (None, split)


def test_the_paper_of_the_squash_trains_on_everything() -> None:
    assert celeba64_ddpmip.Options(path="x").split == "all"
    assert celeba64_ddim.Options(path="x").split == celeba64_scoresde.Options(path="x").split == "train"


def test_an_attribute_becomes_the_label_wherever_the_lists_lie(root: Path) -> None:
    source = run(celeba64_ddim, attribute="Male")
    assert source.classes == ["not Male", "Male"]
    assert source.labels is not None
    assert source.labels.tolist() == [(i + 1) % 2 for i in (0, 2, 4, 5)]
    for name, folder in {"list_attr_celeba.txt": "Anno", "list_eval_partition.txt": "Eval"}.items():
        (root / folder).mkdir()
        (root / name).rename(root / folder / name)
    again = run(celeba64_ddim, attribute="Male")
    assert again.labels is not None
    np.testing.assert_array_equal(again.labels, source.labels)
    with pytest.raises(BadConfig, match=r"'attribute' is Bald, and list_attr_celeba.txt knows: 5_o_Clock_Shadow, Male"):
        run(celeba64_ddim, attribute="Bald")


def test_bad_lists_and_images(root: Path) -> None:
    with pytest.raises(BadData, match=r"the split 'train' of .* holds 4 images and 162,770 are expected"):
        run(celeba64_ddim, expected="official")
    put(root / "img_align_celeba" / "000003.jpg", picture(178, 219))
    with pytest.raises(BadData, match=r"1 of the 4 images .*000003.jpg: it is 178x219 pixels and must be 178x218"):
        run(celeba64_ddim)
    put_truncated(root / "img_align_celeba" / "000003.jpg")
    kept = run(celeba64_ddim, on_damaged="skip", attribute="Smiling")
    assert kept.labels is not None
    assert len(np.load(kept.images)) == len(kept.labels) == 3
    assert kept.notes["skipped"][0]["file"] == "000003.jpg"
    (root / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(BadData, match=r"lacks 000003.jpg, which list_eval_partition.txt lists .1 in all"):
        run(celeba64_ddim)
    partition = root / "list_eval_partition.txt"
    partition.write_text(partition.read_text() + "000001.jpg 0\n")
    with pytest.raises(BadData, match="lists an image twice"):
        run(celeba64_ddim)
    partition.unlink()
    with pytest.raises(BadData, match=r"celeba lacks list_eval_partition.txt"):
        run(celeba64_ddim)


@pytest.mark.parametrize("content", [b"", b"<html>\nnot found\n", b"\xff\xfe\x00 0 0\n", b"000001.jpg 0\n000003.jpg"])
def test_a_list_that_is_something_else_is_refused(root: Path, content: bytes) -> None:
    (root / "list_attr_celeba.txt").write_bytes(content)
    with pytest.raises(BadData, match=r"list_attr_celeba.txt is cut short or not the published file"):
        run(celeba64_ddim, attribute="Male")
    (root / "list_eval_partition.txt").write_bytes(content)
    with pytest.raises(BadData, match=r"list_eval_partition.txt is cut short or not the published file"):
        run(celeba64_ddim)


@pytest.mark.parametrize("expected", [0, -5, 4.0, "any"])
def test_an_expectation_that_is_no_number_of_images_is_refused(expected: Any) -> None:
    with pytest.raises(BadConfig, match=r"^recipe.expected: give 'official', a number of images, or null"):
        part("data/recipes", {"name": "celeba64-ddim", "path": "celeba", "expected": expected}, "recipe")


def test_the_signature_sees_images_and_lists(root: Path) -> None:
    options = celeba64_ddim.Options(path="celeba")
    seen = {celeba64_ddim.signature(options)}
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    seen.add(celeba64_ddim.signature(options))
    put(root / "img_align_celeba" / "000001.jpg", picture(178, 218, seed=9))
    seen.add(celeba64_ddim.signature(options))
    assert len(seen) == 3
