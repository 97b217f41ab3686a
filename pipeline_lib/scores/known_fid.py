"""`python -m pipeline_lib check fid`: FID of real CIFAR-10 images against values that others have measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline_lib import device
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.scores import frechet
from pipeline_lib.scores.extractors import INCEPTION_MISSING, batches, inception, inception_weights

MISSING_DATA = (
    "CIFAR-10, {split} split, is not prepared here: run an experiment with the dataset recipe "
    "{{name: cifar10, split: {split}}} and holdout 0, or `make data` with it"
)


@dataclass(frozen=True)
class Known:
    """FID of the first images of the training split (null: all) against the first of the test split."""

    images: int | None
    value: float
    tolerance: float
    source: str

    @property
    def name(self) -> str:
        part = f"first {self.images} of " if self.images else ""
        return f"FID(CIFAR-10 {part}train, {part}test)"


KNOWN = (
    Known(None, 3.1508, 1e-3, "official TensorFlow code, as pytorch-gan-metrics reports it [found]"),
    Known(5000, 10.3233274, 1e-4, "torch-fidelity's test against the TensorFlow code [found]"),
)


def run() -> int:
    """Print a line for each known value; 1 where one is missed or could not be computed, else 0."""
    lost = list(missing())
    for what in lost:
        print(f"missing: {what}")
    if lost:
        for known in KNOWN:
            print(f"not checked  {known.name}: {known.value:.9g}, {known.source}")
        return 1
    agreed = [check(known) for known in KNOWN]  # all of them, also after one that fails
    return int(not all(agreed))


def missing() -> Iterator[str]:
    """What is needed and not there, a sentence each."""
    try:
        if inception_weights(None) is None:
            yield f"{INCEPTION_MISSING[: INCEPTION_MISSING.index(' and name')]} into torch.hub's cache (checkpoints/)"
    except PipelineError as error:
        yield str(error)
    there = splits()
    for split in ("train", "test"):
        if split not in there:
            yield MISSING_DATA.format(split=split)


def splits() -> Mapping[str, Manifest]:
    """The prepared splits of CIFAR-10 that the store has whole, in the published order."""
    found = {}
    for path in sorted(STORE.glob("data-*/manifest.json")):
        one = Manifest.load(path)
        if one.facts.get("recipe") == "cifar10" and not one.facts["holdout"]:
            found[one.facts["notes"]["split"]] = one
    return found


def check(known: Known) -> bool:
    """Compute one value, print it beside the known one, and say whether they agree."""
    weights, there = inception_weights(None), splits()
    assert weights
    extractor, moments = inception(weights, 3, device.pick()), {}
    for split, made in there.items():
        images = np.load(made.file("train-images.npy"), mmap_mode="r")[: known.images]
        moments[split] = extractor.moments(batches(images, extractor.batch))
    value = frechet.distance(moments["train"], moments["test"])
    agrees = abs(value / known.value - 1) < known.tolerance
    verdict = "pass" if agrees else "FAIL"
    within = f"{value:.9g} here, {known.value:.9g} known, within {known.tolerance:g}"
    print(f"{verdict}  {known.name}: {within}; {known.source}")
    return agrees
