"""ImageNet at 32 and 64 pixels: three datasets of one name, which papers mix.

new: Chrabaszcz et al., 2017, box filter, what image-net.org offers today: train_data_batch_1 .. 10 and val_data, .npz
files or pickles. old: van den Oord et al., 2016, another filter, no labels, no longer offered there: train_32x32/*.png
and valid_32x32/*.png. adm: the full images in class folders, resized as guided-diffusion does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, folder_of, from_images
from pipeline_lib.data.recipes._ilsvrc import LICENCE, prepare_tree, tree_signature, tree_size
from pipeline_lib.exits import BadData

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

COUNTS = {
    "new": {"train": 1_281_167, "val": 50_000},
    "old": {"train": 1_281_149, "val": 49_999},
}
SIGNS = {"new": ["train_data_batch_*", "val_data*"], "old": ["train_*x*", "valid_*x*"], "adm": ["train/n*", "val/n*"]}
BATCHES = {"train": [f"train_data_batch_{i}" for i in range(1, 11)], "val": ["val_data"]}
CLASSES = [str(i) for i in range(1, 1001)]


class Options(ImageFiles):
    """Which of the three releases, and which of its parts."""

    release: Literal["new", "old", "adm"] = Field(
        "new", description="new: batches with labels (2017); old: PNG files (2016); adm: from ILSVRC 2012 as ADM does"
    )
    split: Literal["train", "val"] = Field("train", description="training or validation images")


def size(options: Options, side: int) -> Official:
    """As published; an uncompressed batch is as large as its pixels."""
    if options.release == "adm":
        return tree_size(options.split, side)
    count = COUNTS[options.release][options.split]
    size = count * 3 * side * side
    return Official(count, (3, side, side), size, size, "memory", labels=options.release != "old")


def files_read(options: Options, side: int) -> str:
    """Signature of the batches or images."""
    from pipeline_lib.data.folders import signature_below, signature_of

    root = _root(options)
    if options.release == "old":
        return signature_below(_old_folder(root, options, side))
    if options.release == "adm":
        return tree_signature(options, options.split)
    return signature_of(_batch_files(root, options))


def prepare_release(options: Options, folder: Path, side: int) -> Source:
    """Images uint8 (N,3,side,side) in the order of the files; labels where there are any; raises BadData."""
    root = _root(options)
    if options.release == "adm":
        return prepare_tree(options, options.split, folder, side)
    return (_prepare_old if options.release == "old" else _prepare_new)(root, options, folder, side)


def _prepare_old(root: Path, options: Options, folder: Path, side: int) -> Source:
    from pipeline_lib.data.decode import Geometry
    from pipeline_lib.data.folders import by_stem
    from pipeline_lib.data.images import Files

    images = _old_folder(root, options, side)
    names = by_stem(images)
    check_count(len(names), options, COUNTS["old"][options.split], images)
    source = f"downsampled ImageNet of 2016 (van den Oord et al.), {side}x{side}"
    about = {"source": source, "release": "old", "split": options.split, "licence": LICENCE, "size": "as published"}
    return from_images(Files(str(images)), names, Geometry(side, resize="none"), folder, options.on_damaged, about)


def _prepare_new(root: Path, options: Options, folder: Path, side: int) -> Source:
    import numpy as np

    from pipeline_lib.data.arrays import appending
    from pipeline_lib.data.images import duplicates, hash_rows
    from pipeline_lib.records.progress import Progress

    files = _batch_files(root, options)
    progress = Progress(log, "reading", "images", COUNTS["new"][options.split])
    labels: list[int] = []
    hashes: list[bytes] = []
    with appending(folder / "images.npy", (3, side, side), np.uint8) as append:
        for path in files:
            for rows in _pixels(path, side):
                append(rows)
                hashes += hash_rows(rows)
                progress.update(len(hashes))
            labels += _labels(path, len(hashes) - len(labels))
    check_count(len(labels), options, COUNTS["new"][options.split], f"the {len(files)} batches in {root}")
    notes = {
        "source": f"downsampled ImageNet of 2017 (Chrabaszcz et al.), {side}x{side}",
        "release": "new",
        "split": options.split,
        "licence": LICENCE,
        "size": "as published (box filter)",
        "labels": "those of the files less 1; their order is that of map_clsloc.txt, not of the WordNet ids",
        "duplicates": duplicates(hashes),
    }
    return Source(folder / "images.npy", np.array(labels, np.int64) - 1, CLASSES, notes)


def _old_folder(root: Path, options: Options, side: int) -> Path:
    return folder_of(str(root), f"{'train' if options.split == 'train' else 'valid'}_{side}x{side}")


def _batch_files(root: Path, options: Options) -> list[Path]:
    """The batches that are there, .npz before pickle; all of them unless `expected` allows fewer."""
    names = BATCHES[options.split]
    files = [path for name in names for path in (root / f"{name}.npz", root / name) if path.is_file()]
    files = [path for path in files if path.suffix or path.with_name(f"{path.name}.npz") not in files]
    missing = [name for name in names if name not in {path.stem for path in files}]
    if not files or (missing and options.expected == "official"):
        raise BadData(
            f"{root} lacks {len(missing)} of the {len(names)} batches, the first is {missing[0]} (with or without "
            ".npz); complete it, or set 'expected: null' to use the others."
        )
    return files


def _root(options: Options) -> Path:
    """The folder of the dataset; raises BadData where it holds another release only."""
    root = folder_of(options.path)
    found = {release: sorted(p.name for sign in signs for p in root.glob(sign)) for release, signs in SIGNS.items()}
    for release, names in found.items():
        if names and not found[options.release]:
            raise BadData(
                f"{root} holds {names[0]}, which belongs to the {release} release, and 'release' is "
                f"'{options.release}'; they are different datasets, so say 'release: {release}' if that one is meant."
            )
    return root


def _pixels(path: Path, side: int) -> Iterator[np.ndarray]:
    """Blocks uint8 (n,3,side,side) of a batch; raises BadData for one of another size."""
    import numpy as np

    from pipeline_lib.data.batches import npz_blocks

    for rows in npz_blocks(path, "data") if path.suffix == ".npz" else [_pickled(path, "data")]:
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (3 * side * side,):
            held = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise BadData(
                f"{path} holds {held}, and images of {side}x{side} are uint8 (N, {3 * side * side}); "
                "it must be of another size, so get the right one."
            )
        yield rows.reshape(-1, 3, side, side)


def _labels(path: Path, count: int) -> list[int]:
    from pipeline_lib.data.batches import npz_blocks

    if path.suffix == ".npz":
        labels = [int(label) for block in npz_blocks(path, "labels") for label in block]
    else:
        labels = list(_pickled(path, "labels"))
    if len(labels) != count or not all(1 <= label <= 1000 for label in labels):
        raise BadData(f"{path} holds {len(labels)} labels for {count} images, or others than 1..1000; get it again.")
    return labels


def _pickled(path: Path, key: str) -> Any:
    from pipeline_lib.data.batches import unpickle

    with path.open("rb") as stream:
        content = unpickle(stream, path)
    if key not in content:
        raise BadData(f"{path} has no '{key}'; get the published file.")
    return content[key]
