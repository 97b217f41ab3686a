"""The reference stage: moments of the training images' features, one file for each extractor."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib import device
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import atomic, sha256
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.scores.extractors import (
    INCEPTION,
    INCEPTION_MISSING,
    Extractor,
    batches,
    from_classifier,
    inception,
    inception_weights,
)

VERSION = 1
INCEPTION_COPY = "inception.pth"
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, data: Manifest, classifier: Manifest
) -> None:
    """Compute the moments over all training images, unless the store has them, and write their manifest.

    The path of the Inception weights is no part of the identity, their hash is; a copy of them stays with the moments,
    so that what is scored against these is scored with the same weights.
    """
    weights = inception_weights(config["inception_weights"])
    inputs = {"data": data.content, "classifier": classifier.content, "inception": sha256(weights) if weights else ""}
    store = entry("reference", VERSION, {}, inputs)
    store.obtain(lambda: _make(store, Prepared(data), classifier, weights)).publish(output)


def _make(store: Entry, images: Prepared, classifier: Manifest, weights: Path | None) -> Manifest:
    watch, where, files = Stopwatch("reference"), device.pick(), []
    extractors = [from_classifier(classifier, where)]
    if weights:
        extractors.append(inception(weights, images.shape[0], where))
        with atomic(store.folder / INCEPTION_COPY) as temporary:
            shutil.copyfile(weights, temporary)
        files.append(INCEPTION_COPY)
    files += [_moments(extractor, images, store.folder) for extractor in extractors]
    watch.save(store.folder, images=float(len(images)))
    return store.finish(files, _facts(extractors, images))


def moments_file(name: str) -> str:
    """Where the moments of an extractor lie in the stage's folder."""
    return f"{name}.npz"


def _moments(extractor: Extractor, images: Prepared, folder: Path) -> str:
    log.info("%s: features of %d training images", extractor.name, len(images))
    extractor.moments(batches(images.images, extractor.batch)).save(folder / moments_file(extractor.name))
    return moments_file(extractor.name)


def _facts(extractors: list[Extractor], images: Prepared) -> dict[str, Any]:
    names = [e.name for e in extractors]
    return {
        "extractors": {e.name: {"sha": e.sha, "dim": e.dim} for e in extractors},
        "pending": {} if INCEPTION in names else {INCEPTION: INCEPTION_MISSING},
        "split": images.split,
        "images": len(images),
        "shape": list(images.shape),
        "held_out": images.manifest.facts["holdout"],
    }
