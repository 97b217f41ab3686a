"""Scores of sampled cells."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import classifier, controls, evaluate, extractors, frechet, reference
from pipeline_lib.scores.classifier_networks import FeatureNetwork
from pipeline_lib.scores.estimates import Estimate
from tests.scores.conftest import REFERENCE, SETTINGS, digits, prepared

FD = "FD (classifier-digits)"
RECORD, INFLUENCES = Path("scores/scores.parquet"), Path("scores/influences.parquet")
Sampled = Callable[..., Manifest]


def run(samples: int | None, *manifests: Manifest, **more: int):
    """The record of scores, by metric and calls."""
    config = {"samples": samples, "extrapolate": False, **more}
    evaluate.run(config, {}, RECORD, *manifests, influences=INFLUENCES)
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


def test_over_sets_of_samples_a_score_is_their_mean(trained: Manifest, statistics: Manifest, sampled: Sampled) -> None:
    """Its standard error is that of both halves together: each moves it by half, and they are independent."""
    images = digits()[0][:400]
    halves = [run(200, sampled({9: part}), trained, statistics) for part in (images[:200], images[200:])]
    whole = run(200, sampled({9: images}), trained, statistics, sets=2)
    assert set(whole[whole["sets"].notna()].index) == set(halves[0][halves[0]["status"].eq("done")].index)
    for key in [(FD, 9), ("precision (classifier-digits)", 9), ("recall (classifier-digits)", 9)]:
        one, other, both = halves[0].loc[key], halves[1].loc[key], whole.loc[key]
        assert both["value"] == pytest.approx((one["value"] + other["value"]) / 2)
        assert (both["sets"], both["samples"]) == (2, 200)
        assert both["set_sd"] == pytest.approx(abs(one["value"] - other["value"]) / 2**0.5)
    pooled = (halves[0].loc[(FD, 9)]["se"] ** 2 + halves[1].loc[(FD, 9)]["se"] ** 2) ** 0.5 / 2
    assert whole.loc[(FD, 9)]["se"] == pytest.approx(pooled, rel=0.01)  # n - 1 in the place of 2 (n - 1)
    assert whole.loc[(FD, 9)]["low"] < whole.loc[(FD, 9)]["value"] < whole.loc[(FD, 9)]["high"]
    shares = tables.read(INFLUENCES, tables.SCORE_INFLUENCES).set_index("metric")["images"]
    assert len(shares[FD]) == 400
    assert run(200, sampled({9: images}), trained, statistics)["sets"].isna().all()


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
    reference.run(
        REFERENCE | {"inception_weights": str(random_inception)}, {}, Path("r.json"), data, Manifest.load("c.json")
    )
    random_inception.unlink()
    rows = run(3, sampled({9: images[4:8]}), Manifest.load("c.json"), Manifest.load("r.json"))
    fid = rows.loc[("FID", 9)]
    assert (fid["status"], fid["samples"]) == ("done", 3)
    assert fid["value"] > 0
    assert fid["note"].startswith("grey images repeated to 3 channels; 3 images for 2048 feature dimensions")
    assert fid["library"].startswith("torch-fidelity 0.4.0")


def test_every_score_has_its_row_its_interval_and_its_protocol(
    trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    rows = run(None, sampled({9: digits()[0][:300]}), trained, statistics).xs(9, level="nfe")
    name = "classifier-digits"
    known = ["FD", "KD", "precision", "recall", "copy rate", "class score"]
    done = rows[rows["status"].eq("done")]
    assert list(done.index) == [f"{what} ({name})" for what in known]
    assert (done["precision"] == "float32, TF32 off").all()
    assert done["reference_images"].tolist()[:2] == [1500, 1500]
    assert done.loc[f"precision ({name})", "reference_images"] == 297  # equal sizes
    within = done.drop(index=f"recall ({name})")
    assert ((within["low"] <= within["value"]) & (within["value"] <= within["high"])).all()
    assert (within["se"] >= 0).all()
    assert (within["confidence"] == 0.95).all()
    assert np.isnan(done.loc[f"recall ({name})", "se"])


def test_images_of_the_training_set_are_copies_and_others_are_not(
    data: Manifest, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    everything = digits()[0]
    noisy = np.random.default_rng(0).integers(0, 256, (297, 1, 8, 8)).astype(np.uint8)
    rows = run(None, sampled({1: everything[:297], 2: everything[1500:], 3: noisy}), trained, statistics)
    rates = rows.loc["copy rate (classifier-digits)"]["value"]
    assert rates[1] == 1
    assert rates[2] == pytest.approx(0.05, abs=0.004)  # of the held-out images themselves, by definition
    assert rates[3] < 0.01


def test_a_few_repeated_images_are_precise_and_lack_recall(
    trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    images = digits()[0]
    few = images[1500:1520].repeat(15, 0)[:297]
    rows = run(None, sampled({1: few, 2: images[1500:]}), trained, statistics)["value"]
    assert rows["recall (classifier-digits)", 1] < 0.2 < rows["recall (classifier-digits)", 2]
    assert rows["precision (classifier-digits)", 1] > 0.5
    assert rows["class score (classifier-digits)", 2] > 5


def test_influences_give_the_paired_difference_of_two_cells(
    data: Manifest, trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    """What the record keeps is enough: the interval is that of the features."""
    images = digits()[0]
    blurred = (images[:297] * 0.9).astype(np.uint8)
    rows = run(None, sampled({1: blurred, 2: images[:297]}), trained, statistics)
    kept = tables.read(INFLUENCES, tables.SCORE_INFLUENCES).set_index(["metric", "nfe"])["images"]
    found = [Estimate(rows.loc[(FD, nfe)]["value"], kept[FD, nfe].astype(float)) for nfe in (1, 2)]
    ours = extractors.from_classifier(trained, torch.device("cpu"))
    features = [next(ours.features([torch.from_numpy(x)])) for x in (blurred, images[:297])]
    everything = ours.moments([torch.from_numpy(np.array(Prepared(data).images))])
    expected = frechet.paired_difference(*features, everything)
    assert (found[0] - found[1]).value == pytest.approx(expected.value, rel=1e-3)
    assert (found[0] - found[1]).se == pytest.approx(expected.se, rel=1e-3)
    assert set(kept.index.get_level_values("metric")) == {
        f"{what} (classifier-digits)" for what in ("FD", "KD", "precision", "copy rate", "class score")
    }


def test_features_are_kept_in_scratch_by_content(
    trained: Manifest, statistics: Manifest, sampled: Sampled, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sampled({9: digits()[0][:300]})
    first = run(100, sample, trained, statistics)
    assert [np.load(p).shape for p in Path("work/features").iterdir()] == [(100, 16)]
    monkeypatch.delattr(extractors.Extractor, "table")
    pd.testing.assert_frame_equal(run(100, sample, trained, statistics), first)
    with pytest.raises(AttributeError):
        run(50, sample, trained, statistics)


def test_the_extrapolated_distance_is_below_the_plain_one(
    trained: Manifest, statistics: Manifest, sampled: Sampled
) -> None:
    sample = sampled({9: digits()[0][:300]})
    config = {"samples": None, "extrapolate": True}
    evaluate.run(config, {}, RECORD, sample, trained, statistics, influences=INFLUENCES)
    rows = tables.read(RECORD).set_index("metric")
    assert rows.loc["FD-infinity (classifier-digits)", "value"] < rows.loc[FD, "value"]
    evaluate.run(config | {"samples": 127}, {}, RECORD, sample, trained, statistics, influences=INFLUENCES)
    row = tables.read(RECORD).set_index("metric").loc["FD-infinity (classifier-digits)"]
    assert (row["status"], row["note"]) == ("pending", "127 samples are fewer than 8 times the 16 feature dimensions")


def test_without_a_holdout_there_is_no_yardstick_for_copies(sampled: Sampled) -> None:
    images, labels = digits()
    data = prepared(images[:200], None, labels[:200])
    classifier.run({**SETTINGS, "steps": 3}, {}, Path("c.json"), data)
    reference.run(REFERENCE, {}, Path("r.json"), data, Manifest.load("c.json"))
    rows = run(50, sampled({9: images[200:300]}), Manifest.load("c.json"), Manifest.load("r.json"))
    row = rows.loc[("copy rate (classifier-digits)", 9)]
    assert (row["status"], "no images were held out" in row["note"]) == ("pending", True)


def test_features_that_are_not_finite_end_the_stage(
    trained: Manifest, statistics: Manifest, sampled: Sampled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureNetwork, "features", lambda self, x: x.flatten(1)[:, :16] / 0)
    with pytest.raises(BadData, match="classifier-digits gives features that are not finite"):
        run(None, sampled({9: digits()[0][:300]}), trained, statistics)
    assert not list(Path("work").glob("features/*"))
