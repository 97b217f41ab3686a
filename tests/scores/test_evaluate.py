"""Scores of sampled cells."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import classifier, controls, evaluate, extractors, frechet, reference
from tests.scores.conftest import REFERENCE, SETTINGS, digits, prepared

FD = "FD (classifier-digits)"
RECORD = Path("scores/scores.parquet")
Sampled = Callable[..., Manifest]


def run(samples: int | None, *manifests: Manifest):
    """The record of scores, by metric and calls."""
    evaluate.run(
        {"samples": samples, "extrapolate": False}, {}, RECORD, *manifests, influences=RECORD.with_name("influences.parquet")
    )
    return tables.read("scores/scores.parquet", tables.SCORES).set_index(["metric", "nfe"])


def test_worse_images_score_worse_at_the_floors_number(
    data: Manifest, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    real = np.array(Prepared(data).images[:400])
    noisy = np.clip(real + np.random.default_rng(0).normal(0, 60, real.shape), 0, 255).astype(np.uint8)
    rows = run(None, sampled({5: noisy, 20: real}), trained, statistics)
    assert rows.loc[(FD, 20)]["value"] < rows.loc[(FD, 5)]["value"] / 3
    assert list(rows.loc[FD]["samples"]) == [297, 297]
    assert list(rows.loc["FID"]["status"]) == ["pending", "pending"]
    assert list(rows["control"].unique()) == [""]


def test_held_out_images_as_samples_score_as_the_floor(
    data: Manifest, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    held_out = np.array(Prepared(data, "holdout").images)
    value = run(100, sampled({9: held_out}), trained, statistics).loc[(FD, 9)]["value"]
    controls.run({"samples": 100, "extrapolate": False}, {}, Path("c.parquet"), data, trained, statistics)
    floor = tables.read("c.parquet").query("control == 'floor' and metric == @FD")["value"].item()
    assert value == floor
    ours = extractors.from_classifier(trained, torch.device("cpu"))
    moments = ours.moments([torch.from_numpy(held_out[:100])])
    everything = ours.moments([torch.from_numpy(np.array(Prepared(data).images))])
    assert value == pytest.approx(frechet.distance(everything, moments), rel=1e-5)


def test_the_record_says_what_it_was_computed_from(trained: Manifest, statistics: Manifest, sampled: Sampled) -> None:
    sample = sampled({9: digits()[0][:300]})
    run(None, sample, trained, statistics)
    inputs = tables.provenance("scores/scores.parquet")["inputs"]
    assert {name: made["content"] for name, made in inputs.items()} == {
        "sample": sample.content,
        "classifier": trained.content,
        "reference": statistics.content,
    }


def test_fewer_images_than_dimensions_are_warned_of(
    trained: Manifest, statistics: Manifest, sampled: Sampled, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows = run(10, sampled({9: digits()[0][:20]}), trained, statistics)
    assert "10 images for 16 feature dimensions" in rows.loc[(FD, 9)]["note"]
    assert "10 images for 16 feature dimensions" in caplog.text
    assert np.isfinite(rows.loc[(FD, 9)]["value"])


def test_too_few_samples_are_refused(trained: Manifest, statistics: Manifest, sampled: Sampled) -> None:
    with pytest.raises(BadConfig, match=r"sampling draws 100 images, but 297 are scored"):
        run(None, sampled({9: digits()[0][:100]}), trained, statistics)


@pytest.mark.parametrize("images", [np.zeros((300, 3, 8, 8), np.uint8), np.zeros((300, 1, 8, 8), np.float32)])
def test_images_of_another_kind_are_bad_data(
    images: np.ndarray, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    with pytest.raises(BadData, match=r"but the training images are uint8 \[1, 8, 8\]"):
        run(None, sampled({9: images}), trained, statistics)


def test_changed_files_are_bad_data(trained: Manifest, statistics: Manifest, sampled: Sampled) -> None:
    sample = sampled({9: digits()[0][:300]})
    for manifest in (sample, statistics):
        name = next(iter(manifest.files))
        path = Path(manifest.folder) / name
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(BadData, match="not what it was when it was made"):
            run(None, sample, trained, statistics)
        path.write_bytes(kept)


def test_the_reference_must_be_of_the_same_classifier(
    data: Manifest, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    classifier.run({**SETTINGS, "steps": 2}, {}, Path("other.json"), data)
    with pytest.raises(BadData, match="not made with the extractor classifier-digits"):
        run(None, sampled({9: digits()[0][:300]}), Manifest.load("other.json"), statistics)


def test_fid_is_scored_where_there_are_weights(random_inception: Path, sampled: Sampled) -> None:
    images, labels = digits()
    data = prepared(images[:4], None, labels[:4])
    classifier.run({**SETTINGS, "steps": 2}, {}, Path("c.json"), data)
    reference.run(REFERENCE | {"inception_weights": str(random_inception)}, {}, Path("r.json"), data, Manifest.load("c.json"))
    random_inception.unlink()
    rows = run(3, sampled({9: images[4:8]}), Manifest.load("c.json"), Manifest.load("r.json"))
    fid = rows.loc[("FID", 9)]
    assert (fid["status"], fid["samples"]) == ("done", 3)
    assert fid["value"] > 0
    assert fid["note"].startswith("grey images repeated to 3 channels; 3 images for 2048 feature dimensions")
    assert fid["library"].startswith("torch-fidelity 0.4.0")
