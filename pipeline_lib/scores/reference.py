"""The reference stage: what is known of the training images' features, for each extractor.

Moments over all images (or published ones), the features of up to `KEPT` images in random order, the mean kernel among
these, and how far held-out images are from the nearest of them.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.parallel import join
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import atomic, sha256
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.scores import kernel_distance, neighbours, pretrained
from pipeline_lib.scores.extractors import (
    INCEPTION,
    INCEPTION_MISSING,
    Extractor,
    batches,
    from_classifier,
    inception,
    inception_weights,
)
from pipeline_lib.scores.frechet import Moments
from pipeline_lib.scores.shared import LEAVE, help_out, shared

VERSION = 2
INCEPTION_COPY = "inception.pth"
KEPT = 50_000  # images whose features are kept: 410 MB for Inception
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, data: Manifest, classifier: Manifest
) -> None:
    """Compute all of it, unless the store has it, and write its manifest.

    Paths are no part of the identity, hashes are: of the Inception weights, of which a copy stays with the moments, so
    that what is scored against these is scored with the same weights; and of published statistics.
    """
    weights, published = inception_weights(config["inception_weights"]), config.get("statistics")
    if published and not Path(published).is_file():
        raise BadConfig(f"statistics: there is no file {published}; null takes the moments of the training images.")
    further = {name: pretrained.weights(name) for name in config.get("extractors", ())}
    inputs = {
        "data": data.content,
        "classifier": classifier.content,
        "name": classifier.facts["name"],
        "inception": sha256(weights) if weights else "",
        "statistics": sha256(Path(published)) if published else "",
        **{name: sha256(path) if path else "" for name, path in further.items()},
    }
    store = entry("reference", VERSION, {}, inputs)
    images, path = Prepared(data), Path(published) if published else None
    with join() as world:

        def extractors() -> list[Extractor]:
            return shared(_extractors(classifier, weights, further, images.shape[0], device.pick()), world)

        if world.leads:
            store.obtain(lambda: _Maker(store, images, extractors()).all(weights, path, further)).publish(output)
            world.told(LEAVE)
        else:
            help_out(extractors, world, images.shape)


def _extractors(
    classifier: Manifest, weights: Path | None, further: Mapping[str, Path | None], channels: int, where: torch.device
) -> list[Extractor]:
    found = [from_classifier(classifier, where), *([inception(weights, channels, where)] if weights else [])]
    return found + [pretrained.load(name, path, channels, where) for name, path in further.items() if path]


class _Maker:
    """Fills the folder of the stage."""

    def __init__(self, store: Entry, images: Prepared, extractors: list[Extractor]) -> None:
        self.store, self.images, self.extractors = store, images, extractors
        self.files: list[str] = []

    def all(self, weights: Path | None, published: Path | None, further: Mapping[str, Path | None]) -> Manifest:
        watch = Stopwatch("reference")
        missing = {name: pretrained.missing(name) for name, path in further.items() if path is None}
        if weights:
            with atomic(self.store.folder / INCEPTION_COPY) as temporary:
                shutil.copyfile(weights, temporary)
            self.files.append(INCEPTION_COPY)
        else:
            missing = {INCEPTION: INCEPTION_MISSING, **missing}
        known = {e.name: self._measure(e) for e in self.extractors}
        if published and weights:
            statistics(published, known[INCEPTION]["dim"]).save(self.store.folder / moments_file(INCEPTION))
            known[INCEPTION]["published"] = sha256(published)
        watch.save(self.store.folder, images=float(len(self.images)))
        return self.store.finish(self.files, {"extractors": known, "pending": missing, **self._facts()})

    def _measure(self, extractor: Extractor) -> dict[str, Any]:
        log.info("%s: features of %d training images", extractor.name, len(self.images))
        moments, kept = _stream(extractor, self.images.images)
        moments.save(self.store.folder / moments_file(extractor.name))
        self._save(features_file(extractor.name), kept)
        self.files.append(moments_file(extractor.name))
        known = kept.to(extractor.device)
        if self.images.manifest.facts["holdout"]:
            held = self.images.holdout().images[:KEPT]
            found = extractor.table(batches(held, extractor.batch), len(held))
            self._save(nearest_file(extractor.name), neighbours.nearest(found, known))
        within = kernel_distance.within(known) if len(known) > 1 else None
        return {"sha": extractor.sha, "dim": extractor.dim, "kept": len(known), "kernel_mean": within}

    def _save(self, name: str, values: Tensor) -> None:
        with atomic(self.store.folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, values.cpu().numpy())
        self.files.append(name)

    def _facts(self) -> dict[str, Any]:
        return {
            "split": self.images.split,
            "images": len(self.images),
            "shape": list(self.images.shape),
            "held_out": self.images.manifest.facts["holdout"],
        }


def moments_file(name: str) -> str:
    """Where the moments of an extractor lie in the stage's folder."""
    return f"{name}.npz"


def features_file(name: str) -> str:
    """Where the features of training images lie, float32 (kept, D), any first n of them a fair sample."""
    return f"{name}-features.npy"


def nearest_file(name: str) -> str:
    """Where the distances of held-out images to the nearest kept training image lie, float32 (H,)."""
    return f"{name}-held-out.npy"


def _stream(extractor: Extractor, images: np.ndarray) -> tuple[Moments, Tensor]:
    """Moments over all images, and the features of at most `KEPT` of them in random order, in one pass."""
    count = len(images)
    order = torch.from_numpy(np.random.RandomState(0).permutation(count)[:KEPT])
    place = torch.full((count,), -1).scatter_(0, order, torch.arange(len(order)))
    moments, kept, start = Moments(extractor.dim, extractor.device), torch.empty(len(order), extractor.dim), 0
    for features in extractor.features(batches(images, extractor.batch)):
        moments.add(features)
        here = place[start : start + len(features)]
        kept[here[here >= 0]] = features.cpu()[here >= 0]
        start += len(features)
    return moments, kept


def statistics(path: Path, dim: int) -> Moments:
    """Published statistics (.npz with mu (D,) and sigma (D,D), as those of EDM and guided-diffusion); raises BadData
    where the file is no such thing."""
    try:
        with np.load(path) as file:
            mean, covariance = torch.from_numpy(file["mu"]).double(), torch.from_numpy(file["sigma"]).double()
    except KeyError as error:
        raise BadData(f"statistics: {path} holds no 'mu' and 'sigma' ({error}).") from None
    except (OSError, EOFError, ValueError, TypeError, BadZipFile):  # what numpy says is of pickles
        raise BadData(f"statistics: {path} is no .npz of statistics; fetch it again.") from None
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        shapes = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
        raise BadData(f"statistics: {path} holds {shapes}, but the extractor has {dim} features.")
    if not mean.isfinite().all() or not covariance.isfinite().all():
        raise BadData(f"statistics: {path} holds numbers that are not finite; fetch it again.")
    return Moments.given(mean, covariance)
