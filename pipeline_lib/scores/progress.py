"""The progress stage: scores of the averaged weights that a training has kept on its way, and of its last ones.

The result of a training is what it ends with. Its snapshots say how it got there, and none is ever chosen.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_lib import device
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Sampling
from pipeline_lib.exits import BadData
from pipeline_lib.networks import latent_space, trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import digest
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers._stage import VERSION as SAMPLE_VERSION
from pipeline_lib.samplers._stage import Cell, load_guide, store_of
from pipeline_lib.scores.evaluate import images_of
from pipeline_lib.scores.extractors import batches
from pipeline_lib.scores.measures import Row
from pipeline_lib.scores.scoring import Scorer

VERSION = 1
SAMPLES = Path("work/progress")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """A place on the way of a training: the images that its weights draw, uint8 (N,C,H,W), and their hash."""

    step: int
    average: str
    calls: float
    images: np.ndarray
    content: str


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    train: Manifest,
    sample: Manifest,
    classifier: Manifest,
    reference: Manifest,
    influences: Path,
    autoencoder: Manifest | None = None,
    guide: Manifest | None = None,
) -> None:
    """Rows of PROGRESS for every snapshot and for the end, each on the same chains; and what each image adds.

    The end is scored on the first images of `sample`, which are the very chains that snapshots draw. The samples of
    snapshots are kept in scratch, so that an interrupted job goes on.
    """
    watch, where = Stopwatch("progress"), device.pick()
    scorer = Scorer(classifier, reference, where, extrapolate=False)
    wanted = config["images"] or reference.facts["held_out"]
    _check_source(config["sampling"], train, sample, autoencoder, guide)
    last = trained.about(train.file(trained.WEIGHTS))
    end = _end(config, train, sample, wanted, reference.facts["shape"], trained.average_of(last))
    batch_size = last["run"]["training"]["batch_size"]
    snapshots = _Snapshots(config, runtime["batch"], len(end.images), where, train, autoencoder, guide)
    rows: list[Row] = []
    shares: list[Row] = []
    for point in [*snapshots, end]:
        seen = {"step": point.step, "images_seen": point.step * batch_size, "average": point.average}
        about = {"nfe": round(point.calls), **seen, **_spent(train, point.step)}
        count = len(point.images)
        for score in scorer.scores(partial(batches, point.images), count, about, point.content):
            rows.append(score.row)
            if score.estimate:
                kept = {"images": score.estimate.influence.astype(np.float32)}
                shares.append({k: score.row[k] for k in ("nfe", "step", "metric")} | kept)
                log.info("step %d: %s %.4g", point.step, score.row["metric"], score.row["value"])
    given = {"train": train, "sample": sample, "classifier": classifier, "reference": reference}
    given |= {k: m for k, m in (("autoencoder", autoencoder), ("guide", guide)) if m}
    made = provenance.of("progress", VERSION, config, given)
    tables.write(influences, shares, tables.PROGRESS_INFLUENCES, made)
    tables.write(output, rows, tables.PROGRESS, made)
    watch.save(output.parent, images=float(len(end.images) * len(train.facts["snapshots"])))


def _check_source(
    sampling: Mapping[str, Any],
    train: Manifest,
    sample: Manifest,
    autoencoder: Manifest | None,
    guide: Manifest | None,
) -> None:
    """Raise BadData where samples are not those of this training's weights in this sampling: no point of its curve."""
    counts = {one["count"] for one in sample.facts["cells"]}
    asked = [store_of({**sampling, "images": count}, train, autoencoder, guide) for count in counts]
    if sample.fingerprint not in {one.fingerprint for one in asked}:
        raise BadData(
            f"the samples in {sample.folder} were not drawn, as progress asks, from the weights in {train.folder}: "
            "give the manifest of the samples of this very training and sampling, or run the sample stage again."
        )


def _end(
    config: Mapping[str, Any], train: Manifest, sample: Manifest, wanted: int, shape: list[int], average: str
) -> Point:
    """The end of the training, in the cell of the asked number of calls; raises BadData where it was not drawn."""
    nfe = config["sampling"]["nfe"][0]
    cell = next((one for one in sample.facts["cells"] if one["nfe"] == nfe), None)
    if cell is None:
        raise BadData(f"the samples in {sample.folder} have no cell of {nfe} calls; run the sample stage again.")
    images = images_of(sample, cell, wanted, shape)
    return Point(train.facts["steps"], average, cell["calls"], images, sample.files[cell["images"]])


class _Snapshots:
    """The snapshots of a training, drawn one after the other as they are asked for."""

    def __init__(
        self,
        config: Mapping[str, Any],
        batch: int,
        images: int,
        where: torch.device,
        train: Manifest,
        autoencoder: Manifest | None,
        guide: Manifest | None,
    ) -> None:
        self.sampling = parse(Sampling, {**config["sampling"], "images": images})
        self.batch, self.where, self.train = batch, where, train
        self.space = latent_space.load(autoencoder, where) if autoencoder else None
        self.guide = load_guide(self.sampling, guide, where)
        self.identity = {
            "sampling": self.sampling.model_dump(mode="json"),
            "autoencoder": autoencoder.content if autoencoder else "",
            "guide": guide.content if guide else "",
            "version": SAMPLE_VERSION,
        }

    def __iter__(self) -> Iterator[Point]:
        for step in self.train.facts["snapshots"]:
            name, nfe = trained.snapshot_file(step), self.sampling.nfe[0]
            denoiser, about = trained.ready(self.train.file(name), self.where, self.sampling.precision)
            folder = SAMPLES / digest({**self.identity, "weights": self.train.files[name]})[:16]
            cell = Cell(folder, denoiser, about, self.sampling, self.batch, self.where, self.space, self.guide).get(nfe)
            images = np.load(folder / "images.npy", mmap_mode="r")
            yield Point(step, trained.average_of(about), cell["facts"]["calls"], images, cell["files"]["images.npy"])


def _spent(train: Manifest, step: int) -> Row:
    """Seconds of training until a step, and on what; unknown where the costs of the training are gone."""
    path = Path(train.folder) / "costs.json"
    costs = json.loads(path.read_text()) if path.is_file() else {}
    until: dict[str, Any] = next((one for one in costs.get("snapshots", ()) if one["step"] == step), {})
    found = {key: until.get(key, costs.get(key, "")) for key in ("device", "host")}
    return {"gpu_seconds": until.get("seconds"), **found}
