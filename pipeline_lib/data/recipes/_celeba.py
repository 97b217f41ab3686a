"""CelebA as published (aligned and cropped, 178x218 JPEGs), for the three ways to 64x64 that the literature mixes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, folder_of, from_images
from pipeline_lib.exits import BadConfig, BadData

if TYPE_CHECKING:
    import numpy as np

    from pipeline_lib.data.decode import Geometry

IMAGES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"
SPLITS = {"train": "0", "valid": "1", "test": "2"}
COUNTS = {"train": 162_770, "valid": 19_867, "test": 19_962, "all": 202_599}
SIZE = (178, 218)

Split = Annotated[
    Literal["train", "valid", "test", "all"],
    Field(description=f"by {PARTITION}; all: every image of the folder"),
]


class CelebA(ImageFiles):
    """Options of all three recipes but the split, whose default they differ in."""

    split: Split = "train"
    attribute: str | None = Field(
        None,
        min_length=1,
        description=f"attribute of {ATTRIBUTES} that becomes the label, such as Male; null: no labels",
    )


def size(options: CelebA) -> Official:
    """As published: img_align_celeba.zip and its files."""
    labels = options.attribute is not None
    return Official(COUNTS[options.split], (3, 64, 64), 1_443_490_838, 1_500_000_000, "memory", labels)


def files_read(options: CelebA) -> str:
    """Signature of the images and lists."""
    from pipeline_lib.data.folders import signature_below, signature_of

    root = folder_of(options.path)
    lists = [place / name for name in (PARTITION, ATTRIBUTES) for place in (root, root / "Eval", root / "Anno")]
    return signature_below(folder_of(options.path, IMAGES)) + signature_of(lists)


def decode_faces(options: CelebA, folder: Path, geometry: Geometry, how: str) -> Source:
    """Images uint8 (N,3,64,64) in the order of their names; raises BadData, and BadConfig for an unknown attribute."""
    from pipeline_lib.data.images import Files

    images = folder_of(options.path, IMAGES)
    names = _names(options, images)
    check_count(len(names), options, COUNTS[options.split], f"the split '{options.split}' of {images}")
    labels, classes = _labels(options, names) if options.attribute else (None, [])
    about = {
        "source": "CelebA (Liu et al., 2015), aligned and cropped images of 178x218",
        "split": options.split,
        "licence": "non-commercial research only; the images may not be passed on (CUHK's agreement)",
        "size": how,
    }
    return from_images(Files(str(images)), names, geometry, folder, options.on_damaged, about, labels, classes)


def _names(options: CelebA, images: Path) -> list[str]:
    from pipeline_lib.data.folders import names_below

    present = sorted(names_below(images))
    if options.split == "all":
        return present
    split = _table(options, PARTITION)
    if not split or any(len(row) != 2 for row in split):
        raise BadData(f"{PARTITION} is cut short or not the published file, a name and a number a line; get it again.")
    if len(split) != len(dict(split)):
        raise BadData(f"{PARTITION} lists an image twice; get the published file.")
    wanted = sorted(name for name, *values in split if values == [SPLITS[options.split]])
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise BadData(f"{images} lacks {missing[0]}, which {PARTITION} lists ({len(missing)} in all); complete it.")
    return wanted


def _labels(options: CelebA, names: list[str]) -> tuple[np.ndarray, list[str]]:
    import numpy as np

    table = _table(options, ATTRIBUTES)
    header, rows = (table[1], table[2:]) if len(table) > 2 else ([], [])
    if not header or any(len(row) != len(header) + 1 for row in rows):
        raise BadData(f"{ATTRIBUTES} is cut short or not the published file; get it again.")
    if options.attribute not in header:
        raise BadConfig(f"'attribute' is {options.attribute}, and {ATTRIBUTES} knows: {', '.join(header)}.")
    column = header.index(options.attribute) + 1
    values = {row[0]: row[column] for row in rows}
    if missing := [name for name in names if name not in values]:
        raise BadData(f"{ATTRIBUTES} lacks {missing[0]} ({len(missing)} in all); get the published file.")
    return np.array([values[name] == "1" for name in names], np.int64), [f"not {options.attribute}", options.attribute]


def _table(options: CelebA, name: str) -> list[list[str]]:
    root = folder_of(options.path)
    found = [place / name for place in (root, root / "Eval", root / "Anno") if (place / name).is_file()]
    if not found:
        raise BadData(f"{root} lacks {name}, which comes with CelebA; put it there.")
    return [line.split() for line in found[0].read_text(errors="replace").splitlines() if line.strip()]
