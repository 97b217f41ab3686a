"""The data stage: a recipe's images, split into training and held-out ones, with a grid to look at."""

import errno
import logging
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline_lib.config.base import Model, load_part, part
from pipeline_lib.data.arrays import copy_rows, save
from pipeline_lib.data.grid import save_grid
from pipeline_lib.data.recipes import Source
from pipeline_lib.data.sizes import needs
from pipeline_lib.exits import BadConfig, BadData, Bug, TryAgain
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import STORE, Entry, Manifest, entry

log = logging.getLogger(__name__)

VERSION = 3
SEED = 0  # of the split: which images are held out must not depend on any setting
GRID_IMAGES = 64


def run(config: dict[str, Any], runtime: dict[str, Any], output: Path) -> None:
    """Prepare the dataset of `config` (recipe, holdout) unless the store has it, and write its manifest to `output`.

    In the store: train-images.npy and holdout-images.npy, uint8 (N,C,H,W); where there are labels, train-labels.npy and
    holdout-labels.npy, int64 (N,); grid.png, which the manifest leaves out, so that no identity depends on PNG bytes.
    Training images keep the recipe's order; held-out ones are in random order, so that any first n are a fair sample.
    Facts: count and holdout (images in each part), shape [C,H,W], classes (names), recipe (name), notes (of the recipe:
    source, split, licence, what was done to the pixels, decoder, skipped files, duplicates).
    Raises BadConfig, BadData, and TryAgain where the disk is full; nothing half-prepared stays.
    """
    recipe, options = load_part("data/recipes", part("data/recipes", config["recipe"], "recipe"))
    place = entry("data", VERSION, config, _inputs(recipe, options))
    manifest = place.obtain(lambda: _prepare(place, recipe, options))
    manifest.publish(output)
    facts = manifest.facts
    log.info(
        "%s: %s training images and %s held out, %s", facts["recipe"], facts["count"], facts["holdout"], place.folder
    )


def draw_holdout(count: int, holdout: int) -> np.ndarray:
    """Indices (holdout,) of the held-out images, in random order, the same at every call.

    A plain draw, not stratified: a score of held-out images is what a perfect sampler would reach, and that draws its
    classes at random too. Raises BadConfig where nothing would be left.
    """
    _check_holdout(count, holdout)
    random = np.random.RandomState(SEED)  # its stream is frozen for good, a Generator's is not (NEP 19)
    return random.permutation(count)[:holdout]


def _check_holdout(count: int, holdout: int) -> None:
    if holdout and count - holdout < 2:
        raise BadConfig(f"'holdout' is {holdout}, but the dataset has {count} images; leave some to train on.")


def _inputs(recipe: ModuleType, options: Model) -> dict[str, str]:
    """What the result depends on besides the configuration: the files that are read."""
    return {"source": recipe.signature(options)} if hasattr(recipe, "signature") else {}


def _prepare(place: Entry, recipe: ModuleType, options: Model) -> Manifest:
    """Fill a folder beside the entry, then put it there; either all of it is there afterwards or nothing."""
    watch = Stopwatch("data")
    part = STORE / f".{place.folder.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a job that was killed; the lock says that nobody works there
        part.mkdir(parents=True)
        files, facts = _fill(part, recipe, options, place.identity["config"])
        shutil.rmtree(place.folder, ignore_errors=True)
        os.replace(part, place.folder)
        watch.save(place.folder, facts["count"] + facts["holdout"])
        return place.finish(files, facts)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TryAgain(
                f"the disk is full: {place.folder} could not be written; free some space and run again."
            ) from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not (place.folder / "manifest.json").is_file():
            shutil.rmtree(place.folder, ignore_errors=True)


def _fill(folder: Path, recipe: ModuleType, options: Model, config: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Run the recipe in `folder` and split what it made; names of the files, facts."""
    name, holdout = config["recipe"]["name"], config["holdout"]
    if holdout and (said := needs(config["recipe"])):
        _check_holdout(int(said["count"]), holdout)  # before hours of decoding; the true count is checked below
    source = recipe.prepare(options, folder)
    count, shape = _check(source, name)
    held = draw_holdout(count, holdout)
    parts = {"train": np.setdiff1d(np.arange(count), held), "holdout": held}
    if not holdout:
        os.replace(source.images, folder / "train-images.npy")
        del parts["holdout"]
    for split, index in parts.items():
        if holdout:
            copy_rows(source.images, index, folder / f"{split}-images.npy")
        if source.labels is not None:
            save(folder / f"{split}-labels.npy", source.labels[index])
    source.images.unlink(missing_ok=True)
    files = sorted(p.name for p in folder.glob("*-*.npy"))
    _save_sample(folder)
    facts = {"count": count - holdout, "holdout": holdout, "shape": list(shape), "classes": source.classes}
    return files, {**facts, "recipe": name, "notes": source.notes}


def _check(source: Source, name: str) -> tuple[int, tuple[int, ...]]:
    """Count and shape of the images; raises where a recipe breaks its contract, as a user's own may."""
    images = np.load(source.images, mmap_mode="r")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise Bug(f"the recipe '{name}' made {images.dtype} {images.shape}, and not uint8 images (N,C,H,W).")
    if not len(images):
        raise BadData(f"the recipe '{name}' found no images.")
    labels, classes = source.labels, len(source.classes)
    if labels is not None and (labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= classes):
        raise Bug(f"the recipe '{name}' made labels that do not fit its {len(images)} images and {classes} classes.")
    return len(images), images.shape[1:]


def _save_sample(folder: Path) -> None:
    images = np.load(folder / "train-images.npy", mmap_mode="r")
    chosen = np.linspace(0, len(images) - 1, min(GRID_IMAGES, len(images))).astype(int)  # all classes, were they sorted
    save_grid(images[chosen], folder / "grid.png")
