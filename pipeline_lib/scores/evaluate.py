"""The scores stage: every cell of a sampled run against the training images."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib import device
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.parallel import join
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores.estimates import Estimate
from pipeline_lib.scores.extractors import batches
from pipeline_lib.scores.measures import Score, over_sets
from pipeline_lib.scores.scoring import Scorer
from pipeline_lib.scores.shared import LEAVE, help_out

VERSION = 2
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    sample: Manifest,
    classifier: Manifest,
    reference: Manifest,
    influences: Path,
) -> None:
    """Rows for each cell, on its first `samples` images (null: as many as were held out), and what each image adds.

    Where nothing was held out, null takes all images of the cell. With `sets`, the means over so many disjoint sets of
    as many images: chains depend on their number alone, so each set is an independent draw. All processes of a job call
    it.
    """
    with join() as world:
        scorer = Scorer(classifier, reference, device.pick(), config["extrapolate"], world)
        if world.leads:
            _score(scorer, config, output, sample, classifier, reference, influences)
            world.told(LEAVE)
        else:
            help_out(lambda: [known.extractor for known in scorer.known], world, reference.facts["shape"])


def _score(
    scorer: Scorer,
    config: Mapping[str, Any],
    output: Path,
    sample: Manifest,
    classifier: Manifest,
    reference: Manifest,
    influences: Path,
) -> None:
    watch, scored, found = Stopwatch("scores"), 0, []
    wanted, sets = config["samples"] or reference.facts["held_out"], config.get("sets", 1)
    for cell in sample.facts["cells"]:
        images = images_of(sample, cell, wanted * sets, reference.facts["shape"])
        scored += len(images)
        columns = {"nfe": round(cell["calls"]), "control": ""}
        new = _scores(scorer, images, sets, columns, sample.files[cell["images"]])
        for row in (score.row for score in new if score.row["status"] == "done"):
            log.info("%d calls: %s %.4g on %d images", columns["nfe"], row["metric"], row["value"], len(images))
        found += new
    about = {"sample": sample, "classifier": classifier, "reference": reference}
    made = provenance.of("scores", VERSION, config, about)
    shares = [_influence(score.row, score.estimate) for score in found if score.estimate]
    tables.write(influences, shares, tables.SCORE_INFLUENCES, made)
    tables.write(output, [score.row for score in found], tables.SCORES, made)
    watch.save(output.parent, images=float(scored))


def _scores(scorer: Scorer, images: np.ndarray, sets: int, cell: Mapping[str, Any], content: str) -> list[Score]:
    """The scores of images (sets * N,C,H,W), over sets of N; features are kept for each set."""
    count, found = len(images) // sets, []
    for start in range(0, count * sets, count):
        part, name = images[start : start + count], f"{content} from {start}" if start else content
        found.append(scorer.scores(partial(batches, part), count, cell, name))
    return [over_sets(of_metric) for of_metric in zip(*found, strict=True)]


def _influence(row: Mapping[str, Any], found: Estimate) -> dict[str, Any]:
    return {"nfe": row["nfe"], "metric": row["metric"], "images": found.influence.astype(np.float32)}


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
