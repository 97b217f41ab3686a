"""All scores of one set of features against what is known of the training images' features."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import class_score, frechet, kernel_distance, neighbours
from pipeline_lib.scores.estimates import CONFIDENCE, Estimate, joined, share
from pipeline_lib.scores.extractors import PRECISION, Extractor
from pipeline_lib.scores.frechet import Moments
from pipeline_lib.scores.reference import features_file, moments_file, nearest_file

COPIES = 0.05  # share of held-out images that are as near to a training image as what counts as a copy
NO_YARDSTICK = "no images were held out, which would tell how near is too near: set holdout of the dataset"
Row = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One row of SCORES, and the estimate behind it where samples have influences on it."""

    row: Row
    estimate: Estimate | None = None


@dataclass
class Known:
    """What the reference stage knows of the training images in the features of one extractor."""

    extractor: Extractor
    manifest: Manifest
    _radii: dict[int, Tensor] = field(default_factory=dict)

    @property
    def about(self) -> Mapping[str, Any]:
        return self.manifest.facts["extractors"][self.extractor.name]

    @cached_property
    def moments(self) -> Moments:
        return Moments.load(self.manifest.file(moments_file(self.extractor.name)))

    @cached_property
    def root(self) -> Tensor:
        return frechet.root(self.moments.covariance)

    @cached_property
    def features(self) -> Tensor:
        """(kept, D) on the extractor's device."""
        return self._array(features_file(self.extractor.name)).to(self.extractor.device)

    @cached_property
    def copies_within(self) -> float | None:
        """The distance below which an image counts as a copy; None where none were held out."""
        name = nearest_file(self.extractor.name)
        return float(np.quantile(self._array(name).numpy(), COPIES)) if name in self.manifest.files else None

    def radii(self, count: int) -> Tensor:
        """Squared radii of the balls around the first `count` training images, computed once for each count."""
        if count not in self._radii:
            self._radii[count] = neighbours.radii(self.features[:count])
        return self._radii[count]

    def _array(self, name: str) -> Tensor:
        return torch.from_numpy(np.load(self.manifest.file(name)))


def scores(known: Known, features: Tensor, extrapolate: bool) -> Iterator[Score]:
    """Every score of features (N,D); those that cannot be computed are pending, with the reason in their note."""
    yield _frechet(known, features)
    if extrapolate:
        yield _extrapolated(known, features)
    yield _kernel(known, features)
    yield from _manifolds(known, features)
    yield _copies(known, features)
    if known.extractor.logits:
        yield _classes(known, features)


def over_sets(found: Sequence[Score]) -> Score:
    """One score of disjoint sets of samples: their mean with its error, and their spread."""
    first = found[0]
    if len(found) == 1 or any(one.row["status"] != "done" for one in found):
        return first
    values = [one.row["value"] for one in found]
    row = {**first.row, "value": fmean(values), "sets": len(found), "set_sd": stdev(values)}
    estimates = [one.estimate for one in found if one.estimate]
    if not estimates:
        return Score(row)
    whole = joined(estimates)
    return Score({**row, **_spread(whole)}, whole)


def _frechet(known: Known, features: Tensor) -> Score:
    extractor, notes = known.extractor, []
    if len(features) <= extractor.dim:
        few = f"{len(features)} images for {extractor.dim} feature dimensions"
        notes.append(f"{few}: biased, compare only at equal N")
    if len(features) < 2:
        return _pending(known, extractor.metric, "a covariance needs two samples")
    found = frechet.estimate(known.moments, features, known.root)
    return _done(known, extractor.metric, found, notes, **moments(known))


def _extrapolated(known: Known, features: Tensor) -> Score:
    name = known.extractor.called("FID-infinity", "FD-infinity")
    try:
        found = frechet.extrapolated(known.moments, features, known.root)
    except ValueError as few:
        return _pending(known, name, str(few))
    return _done(known, name, found, ["extrapolated to infinitely many samples"], **moments(known))


def _kernel(known: Known, features: Tensor) -> Score:
    name, mean = known.extractor.called("KID", "KD"), known.about["kernel_mean"]
    if len(features) < 2 or mean is None:
        return _pending(known, name, "a mean over pairs needs two images on both sides")
    return _done(known, name, kernel_distance.estimate(known.features, mean, features), [], **kept(known))


def _manifolds(known: Known, features: Tensor) -> Iterator[Score]:
    """Precision and recall between sets of equal size, since both depend on it."""
    count, k = min(len(features), len(known.features)), neighbours.NEIGHBOURS
    names = [f"{what} ({known.extractor.name})" for what in ("precision", "recall")]
    if count <= k:
        yield from (_pending(known, name, f"needs more than {k} images on both sides") for name in names)
        return
    notes = [f"on {count} images a side"] if count < len(features) else []
    real, drawn, about = known.features[:count], features[:count], kept(known, count)
    precise = neighbours.covered(drawn, real, known.radii(count))
    yield _done(known, names[0], share(precise.cpu().numpy()), notes, **about)
    recalled = neighbours.covered(real, drawn, neighbours.radii(drawn)).double().mean()
    notes = [*notes, "no interval: the balls move with the samples"]
    yield Score({**_base(known), **about, "metric": names[1], "value": float(recalled), "note": "; ".join(notes)})


def _copies(known: Known, features: Tensor) -> Score:
    """The share of samples that are as near to a training image as 5 % of the held-out images are."""
    name = f"copy rate ({known.extractor.name})"
    if known.copies_within is None:
        return _pending(known, name, NO_YARDSTICK)
    near = neighbours.nearest(features, known.features) <= known.copies_within
    all_of_them = known.about["kept"] == known.manifest.facts["images"]
    notes = [] if all_of_them else [f"among {known.about['kept']} of the training images"]
    return _done(known, name, share(near.cpu().numpy()), notes, **kept(known))


def _classes(known: Known, features: Tensor) -> Score:
    name, splits = known.extractor.called("inception score", "class score"), class_score.SPLITS
    if len(features) < 2 * splits:
        return _pending(known, name, f"needs {2 * splits} samples, for the mean over {splits} parts")
    assert known.extractor.logits
    found = class_score.estimate(torch.cat([known.extractor.logits(part) for part in features.split(4096)]))
    return _done(known, name, found, [f"mean over {splits} parts"])


def _done(known: Known, metric: str, found: Estimate, notes: list[str], **about: Any) -> Score:
    row = {**_base(known), **about, "metric": metric, "value": found.value, "note": "; ".join(notes)}
    return Score({**row, **_spread(found)}, found)


def _spread(found: Estimate) -> Row:
    low, high = found.interval()
    return {"low": low, "high": high, "se": found.se, "confidence": CONFIDENCE}


def _pending(known: Known, metric: str, why: str) -> Score:
    return Score({**_base(known), "metric": metric, "status": "pending", "note": why})


def _base(known: Known) -> Row:
    one = known.extractor
    return {
        "extractor": one.name,
        "extractor_sha": one.sha,
        "library": one.library,
        "resize": one.resize,
        "precision": PRECISION,
        "status": "done",
    }


def moments(known: Known) -> Row:
    """Protocol of a score against moments of all training images, or published ones."""
    facts, sha = known.manifest.facts, known.manifest.files[moments_file(known.extractor.name)]
    if published := known.about.get("published"):
        return {"reference_split": "published statistics", "reference_sha": published}
    return {"reference_images": facts["images"], "reference_split": facts["split"], "reference_sha": sha}


def kept(known: Known, count: int | None = None) -> Row:
    """Protocol of a score against the features of single training images: of `count`, or all that are kept."""
    return {
        "reference_images": count or known.about["kept"],
        "reference_split": known.manifest.facts["split"],
        "reference_sha": known.manifest.files[features_file(known.extractor.name)],
    }
