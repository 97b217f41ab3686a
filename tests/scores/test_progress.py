"""Scores of snapshots: each is that of a training that ended there."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.scores import progress
from pipeline_lib.scores.extractors import batches
from pipeline_lib.scores.scoring import Scorer
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run

SAMPLING = {"sampler": {"name": "ancestral"}, "nfe": [4]}
FD = "FD (classifier-digits)"
BATCH = {"batch": 50}


def ended(data: Manifest, **training: Any) -> Manifest:
    """A training, found again where it was made before."""
    run = tiny_run(training={"steps": 8, "lr": 1e-2, **training})
    train.run(run, RUNTIME, Path("train.json"), data)
    return Manifest.load("train.json")


def drawn(made: Manifest, images: int = 60, nfe: int = 4, **more: Any) -> Manifest:
    output = Path("sample/manifest.json")
    _stage.run({**SAMPLING, "nfe": [nfe], "images": images, **more}, BATCH, output, made)
    return Manifest.load(output)


def run(made: Manifest, sample: Manifest, images: int | None, *known: Manifest) -> pd.DataFrame:
    output, shares = Path("progress/progress.parquet"), Path("progress/influences.parquet")
    config = {"sampling": SAMPLING, "images": images}
    progress.run(config, BATCH, output, made, sample, *known, influences=shares)
    return tables.read(output, tables.PROGRESS)


def test_every_point_is_the_score_of_a_training_that_ended_there(
    data: Manifest, trained: Manifest, statistics: Manifest
) -> None:
    made = ended(data, snapshots=[0.25, 0.5])
    rows = run(made, drawn(made), 40, trained, statistics)
    found = rows[rows["metric"].eq(FD)].set_index("step")
    assert found["images_seen"].to_dict() == {2: 32, 4: 64, 8: 128}
    assert found["gpu_seconds"].is_monotonic_increasing
    scorer = Scorer(trained, statistics, torch.device("cpu"), extrapolate=False)
    for steps in (2, 4, 8):
        sample = drawn(ended(data, steps=steps))
        images = np.load(sample.file("nfe0004/images.npy"))[:40]
        score = next(s for s in scorer.scores(partial(batches, images), 40, {}) if s.row["metric"] == FD)
        assert found["value"][steps] == pytest.approx(score.row["value"], rel=1e-9)
    shares = tables.read("progress/influences.parquet", tables.PROGRESS_INFLUENCES)
    assert {len(one) for one in shares["images"]} == {40}
    assert set(shares["step"]) == {2, 4, 8}


def test_rows_say_what_trained_them_until_then(data: Manifest) -> None:
    """As `costs.json` does; one of an earlier version names a device for all."""
    made = ended(data, snapshots=[0.5])
    path = Path(made.folder) / "costs.json"
    costs = json.loads(path.read_text())
    costs |= {"device": "A + B", "host": "h"}
    until = [{"step": 4, "seconds": 1.0, "device": "A", "host": "h"}, {"step": 8, "seconds": 3.0}]
    path.write_text(json.dumps(costs | {"snapshots": until}))
    assert progress._spent(made, 4) == {"gpu_seconds": 1.0, "device": "A", "host": "h"}
    assert progress._spent(made, 8) == {"gpu_seconds": 3.0, "device": "A + B", "host": "h"}
    path.unlink()
    assert progress._spent(made, 8) == {"gpu_seconds": None, "device": "", "host": ""}


def test_a_snapshot_whose_chains_diverge_has_no_score(
    data: Manifest, trained: Manifest, statistics: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ended(data, snapshots=[0.5])
    sample, draw = drawn(made), _stage.draw
    monkeypatch.setattr(_stage, "draw", lambda *a, **more: draw(*a, **more) * float("nan"))
    with pytest.raises(BadData, match="chains of the sampler ancestral at 4 calls end in numbers that are not finite"):
        run(made, sample, 40, trained, statistics)


def test_samples_of_snapshots_are_drawn_once(
    data: Manifest, trained: Manifest, statistics: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ended(data, snapshots=[0.5])
    sample = drawn(made)
    first = run(made, sample, 40, trained, statistics)
    monkeypatch.setattr(_stage.Cell, "_draw", lambda *a: pytest.fail("drawn again"))
    pd.testing.assert_frame_equal(run(made, sample, 40, trained, statistics), first)


def test_samples_that_were_lost_or_changed_are_drawn_again(
    data: Manifest, trained: Manifest, statistics: Manifest
) -> None:
    made = ended(data, snapshots=[0.5])
    sample = drawn(made)
    first = run(made, sample, 40, trained, statistics)
    (kept,) = Path("work/progress").glob("*/images.npy")
    intact = kept.read_bytes()
    for harm in (lambda: kept.unlink(), lambda: kept.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))):
        harm()
        pd.testing.assert_frame_equal(run(made, sample, 40, trained, statistics), first)
        assert kept.read_bytes() == intact


def test_rows_say_which_average_it_is(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    made = ended(data, snapshots=[0.5])
    rows = run(made, drawn(made), 40, trained, statistics)
    assert set(rows["average"]) == {"ema (decay 0.9)"}


@pytest.mark.parametrize("other", [{"training": {"lr": 2e-2}}, {"seed": 1}], ids=["other training", "other noise"])
def test_the_end_must_be_of_this_very_training_and_sampling(
    other: dict[str, Any], data: Manifest, trained: Manifest, statistics: Manifest
) -> None:
    made = ended(data, snapshots=[0.5])
    source = ended(data, snapshots=[0.5], **other["training"]) if "training" in other else made
    foreign = drawn(source, **{k: v for k, v in other.items() if k == "seed"})
    with pytest.raises(BadData, match=f"were not drawn, as progress asks, from the weights in {made.folder}"):
        run(made, foreign, 40, trained, statistics)


def test_what_was_not_drawn_is_said(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    made = ended(data, snapshots=[0.5])
    with pytest.raises(BadConfig, match="draws 20 images, but 40 are scored"):
        run(made, drawn(made, images=20), 40, trained, statistics)
    with pytest.raises(BadData, match="have no cell of 4 calls"):
        run(made, drawn(made, nfe=2), 40, trained, statistics)
