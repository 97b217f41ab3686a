"""From a set of images to its rows of SCORES: what controls and samples have in common."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.exits import BadData
from pipeline_lib.parallel import ALONE, World
from pipeline_lib.records.files import atomic, digest
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import pretrained
from pipeline_lib.scores.extractors import INCEPTION, Extractor, from_classifier, inception
from pipeline_lib.scores.measures import Known, Row, Score, scores
from pipeline_lib.scores.reference import INCEPTION_COPY, moments_file
from pipeline_lib.scores.shared import shared

FEATURES = Path("work/features")
log = logging.getLogger(__name__)


class Scorer:
    """The extractors of a dataset, each with what is known of the training images."""

    def __init__(
        self,
        classifier: Manifest,
        reference: Manifest,
        device: torch.device,
        extrapolate: bool,
        world: World = ALONE,
    ) -> None:
        """Raises BadData where a file was changed, or the reference was made with other extractors."""
        self.reference, self.extrapolate = reference, extrapolate
        self.known = [Known(e, reference) for e in shared(self._extractors(classifier, device), world)]
        for known in self.known:
            extractor = known.extractor
            if reference.facts["extractors"].get(extractor.name, {}).get("sha") != extractor.sha:
                raise BadData(
                    f"the reference statistics in {reference.folder} were not made with the extractor {extractor.name} "
                    f"in {classifier.folder}; run the reference stage again."
                )
            reference.file(moments_file(extractor.name))

    def _extractors(self, classifier: Manifest, device: torch.device) -> list[Extractor]:
        found, channels = [from_classifier(classifier, device)], self.reference.facts["shape"][0]
        if INCEPTION_COPY in self.reference.files:
            found.append(inception(self.reference.file(INCEPTION_COPY), channels, device))
        for name in sorted(set(self.reference.facts["extractors"]) & set(pretrained.KNOWN)):
            weights = pretrained.weights(name)
            if weights is None:
                raise BadData(f"the reference statistics need {name}, but {pretrained.missing(name)}")
            found.append(pretrained.load(name, weights, channels, device))
        return found

    def scores(
        self, images: Callable[[int], Iterable[Tensor]], count: int, cell: Mapping[str, Any], content: str = ""
    ) -> list[Score]:
        """All scores by every extractor, pending where its weights are missing.

        `images(size)` gives all `count` images in uint8 batches of at most `size`; `cell` holds the columns that say
        which set of images it is; `content`, a hash of the images, lets their features be kept for the next time.
        """
        found = []
        for known in self.known:
            features = _features(known.extractor, images, count, content)
            for score in scores(known, features, self.extrapolate):
                row = {**cell, **score.row, "samples": count}
                row["note"] = "; ".join(filter(None, (known.extractor.note, row["note"])))
                if count <= known.extractor.dim and row["metric"] == known.extractor.metric:
                    log.warning("%s: %s", row["metric"], row["note"])
                found.append(replace(score, row=row))
        return found + [Score(row) for row in self._missing(cell)]

    def rows(self, images: Callable[[int], Iterable[Tensor]], count: int, cell: Mapping[str, Any]) -> list[Row]:
        """The rows of `scores`."""
        return [score.row for score in self.scores(images, count, cell)]

    def pending(self, note: str, cell: Mapping[str, Any]) -> list[Row]:
        """The rows of a set of images that does not exist."""
        rows = [
            {**cell, "metric": e.metric, "extractor": e.name, "extractor_sha": e.sha, "status": "pending", "note": note}
            for e in (known.extractor for known in self.known)
        ]
        return rows + self._missing(cell)

    def _missing(self, cell: Mapping[str, Any]) -> list[Row]:
        return [
            {
                **cell,
                "metric": "FID" if name == INCEPTION else f"FD ({name})",
                "extractor": name,
                "status": "pending",
                "note": note,
            }
            for name, note in self.reference.facts["pending"].items()
        ]


def _features(extractor: Extractor, images: Callable[[int], Iterable[Tensor]], count: int, content: str) -> Tensor:
    """Features (count, D) on the extractor's device; with `content` kept in scratch, keyed by all they depend on."""
    if not content:
        return extractor.table(images(extractor.batch), count)
    key = digest({"images": content, "count": count, "sha": extractor.sha, "library": extractor.library})
    path = FEATURES / f"{key[:16]}.npy"
    if path.is_file():
        return torch.from_numpy(np.load(path)).to(extractor.device)
    features = extractor.table(images(extractor.batch), count)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, features.cpu().numpy())
    return features
