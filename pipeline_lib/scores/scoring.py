"""From a set of images to its rows of SCORES: what controls and samples have in common."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.exits import BadData
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import frechet
from pipeline_lib.scores.extractors import Extractor, from_classifier, inception
from pipeline_lib.scores.frechet import Moments
from pipeline_lib.scores.reference import INCEPTION_COPY, moments_file

log = logging.getLogger(__name__)
Row = dict[str, Any]


class Scorer:
    """The extractors of a dataset, each with the moments of the training images."""

    def __init__(self, classifier: Manifest, reference: Manifest, device: torch.device) -> None:
        """Raises BadData where a file was changed, or the reference was made with another classifier."""
        self.reference = reference
        self.extractors = [from_classifier(classifier, device)]
        if INCEPTION_COPY in reference.files:
            self.extractors.append(inception(reference.file(INCEPTION_COPY), reference.facts["shape"][0], device))
        self.moments, self.roots = {}, {}
        for extractor in self.extractors:
            known = reference.facts["extractors"].get(extractor.name, {})
            if known.get("sha") != extractor.sha:
                raise BadData(
                    f"the reference statistics in {reference.folder} were not made with the extractor {extractor.name} "
                    f"in {classifier.folder}; run the reference stage again."
                )
            self.moments[extractor.name] = Moments.load(reference.file(moments_file(extractor.name)))
            self.roots[extractor.name] = frechet.root(self.moments[extractor.name].covariance)

    def rows(self, images: Callable[[int], Iterable[Tensor]], count: int, cell: Mapping[str, Any]) -> list[Row]:
        """A row for each extractor, pending where its weights are missing.

        `images(size)` gives all `count` images in uint8 batches of at most `size`; `cell` holds the columns that say
        which set of images it is.
        """
        done = [self._score(e, images(e.batch), count, cell) for e in self.extractors]
        return done + self._pending_extractors(cell)

    def pending(self, note: str, cell: Mapping[str, Any]) -> list[Row]:
        """The rows of a set of images that does not exist."""
        rows = [{**cell, **self._about(e), "status": "pending", "note": note} for e in self.extractors]
        return rows + self._pending_extractors(cell)

    def _score(self, extractor: Extractor, images: Iterable[Tensor], count: int, cell: Mapping[str, Any]) -> Row:
        moments = extractor.moments(images)
        assert moments.count == count
        value = frechet.distance(self.moments[extractor.name], moments, self.roots[extractor.name])
        notes = [extractor.note] if extractor.note else []
        if count <= extractor.dim:
            notes.append(f"{count} images for {extractor.dim} feature dimensions: biased, compare only at equal N")
            log.warning("%s: %s", extractor.metric, notes[-1])
        about = self._about(extractor)
        return {**cell, **about, "value": value, "status": "done", "note": "; ".join(notes), "samples": count}

    def _about(self, extractor: Extractor) -> Row:
        facts, file = self.reference.facts, moments_file(extractor.name)
        return {
            "metric": extractor.metric,
            "extractor": extractor.name,
            "extractor_sha": extractor.sha,
            "library": extractor.library,
            "resize": extractor.resize,
            "reference_images": facts["images"],
            "reference_split": facts["split"],
            "reference_sha": self.reference.files[file],
        }

    def _pending_extractors(self, cell: Mapping[str, Any]) -> list[Row]:
        missing = self.reference.facts["pending"]
        return [
            {**cell, "metric": "FID", "extractor": name, "status": "pending", "note": note}
            for name, note in missing.items()
        ]
