"""The scores stage: every cell of a sampled run against the training images."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib import device
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores.extractors import batches
from pipeline_lib.scores.scoring import Scorer

VERSION = 1
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    sample: Manifest,
    classifier: Manifest,
    reference: Manifest,
) -> None:
    """One row for each cell and extractor, on the first `samples` images of the cell (null: as many as were held out).

    Where nothing was held out, null takes all images of the cell.
    """
    watch, scorer, rows, scored = Stopwatch("scores"), Scorer(classifier, reference, device.pick()), [], 0
    wanted = config["samples"] or reference.facts["held_out"]
    for cell in sample.facts["cells"]:
        images = images_of(sample, cell, wanted, reference.facts["shape"])
        scored += len(images)
        columns = {"nfe": round(cell["calls"]), "control": ""}
        new = scorer.rows(partial(batches, images), len(images), columns)
        for row in new:
            if row["status"] == "done":
                log.info("%d calls: %s %.4g on %d images", columns["nfe"], row["metric"], row["value"], len(images))
        rows += new
    inputs = {"sample": sample, "classifier": classifier, "reference": reference}
    tables.write(output, rows, tables.SCORES, provenance.of("scores", VERSION, config, inputs))
    watch.save(output.parent, images=float(scored))


def images_of(sample: Manifest, cell: Mapping[str, Any], wanted: int, shape: list[int]) -> np.ndarray:
    """The first `wanted` images (0: all) of a cell, uint8 (N,C,H,W), memory-mapped.

    Raises BadConfig where there are fewer, BadData where they are not images like the training images.
    """
    path = sample.file(cell["images"])
    images = np.load(path, mmap_mode="r")
    if images.dtype != np.uint8 or list(images.shape[1:]) != shape:
        raise BadData(
            f"{path} holds {images.dtype} images {list(images.shape[1:])}, but the training images are uint8 {shape}; "
            "delete its folder and run again."
        )
    if len(images) < wanted:
        raise BadConfig(
            f"sampling draws {len(images)} images, but {wanted} are scored, as many as for the floor; raise images of "
            f"the sampling, or set scores.samples to at most {len(images)}."
        )
    return images[: wanted or None]
