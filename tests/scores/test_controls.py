"""Floor and ceiling at an equal number of images."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.exits import BadConfig
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import classifier, controls, extractors, frechet, reference
from pipeline_lib.scores.frechet import Moments
from tests.scores.conftest import REFERENCE, SETTINGS, digits, prepared


def run(samples: int | None, *manifests: Manifest):
    """The record of the controls."""
    controls.run({"samples": samples, "extrapolate": False}, {}, Path("controls/scores.parquet"), *manifests)
    return tables.read("controls/scores.parquet", tables.SCORES).set_index(["metric", "control"])


def test_the_floor_is_far_below_the_ceiling(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    rows = run(None, data, trained, statistics)
    floor, ceiling = rows.loc[("FD (classifier-digits)", "floor")], rows.loc[("FD (classifier-digits)", "ceiling")]
    assert 0 < floor["value"] < ceiling["value"] / 10
    assert floor["samples"] == ceiling["samples"] == 297
    assert (floor["nfe"], floor["status"], floor["reference_images"]) == (0, "done", 1500)
    assert floor["extractor_sha"] == trained.files["classifier.safetensors"]


def test_the_floor_is_that_of_the_held_out_images(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    extractor = extractors.from_classifier(trained, torch.device("cpu"))
    known = Moments.load(statistics.file(reference.moments_file(extractor.name)))
    found = run(100, data, trained, statistics).loc[("FD (classifier-digits)", "floor"), "value"]
    images, _ = digits()
    held_out, seen = (
        frechet.distance(known, extractor.moments(extractors.batches(part, 64)))
        for part in (images[1500:1600], images[:100])
    )
    assert found == pytest.approx(held_out, rel=1e-4)
    assert seen != pytest.approx(held_out, rel=0.01)


def test_fid_is_pending_without_weights(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    rows = run(50, data, trained, statistics)
    fid = rows.loc[("FID", "floor")]
    assert fid["status"] == "pending"
    assert fid["value"] is None or fid["value"] != fid["value"]
    assert "scores.inception_weights" in fid["note"]
    assert rows.loc[("FD (classifier-digits)", "ceiling")]["samples"] == 50


def test_more_than_was_held_out_is_refused(data: Manifest, trained: Manifest, statistics: Manifest) -> None:
    with pytest.raises(BadConfig, match=r"scores\.samples is 298, but only 297 images were held out"):
        run(298, data, trained, statistics)


@pytest.mark.parametrize(("samples", "ceiling"), [(None, "pending"), (40, "done")])
def test_without_a_holdout_the_floor_is_pending(samples: int | None, ceiling: str) -> None:
    images, labels = digits()
    data = prepared(images[:200], None, labels[:200])
    classifier.run({**SETTINGS, "steps": 3}, {}, Path("c.json"), data)
    trained = Manifest.load("c.json")
    reference.run(REFERENCE, {}, Path("r.json"), data, trained)
    rows = run(samples, data, trained, Manifest.load("r.json"))
    floor = rows.loc[("FD (classifier-digits)", "floor")]
    assert floor["status"] == "pending"
    assert "held out" in floor["note"]
    assert rows.loc[("FD (classifier-digits)", "ceiling")]["status"] == ceiling


def test_noise_is_uniform_and_does_not_depend_on_the_batch() -> None:
    where = torch.device("cpu")
    whole = torch.cat(list(controls.noise_images(100, [3, 8, 8], where, 100)))
    assert torch.equal(whole, torch.cat(list(controls.noise_images(100, [3, 8, 8], where, 7))))
    assert whole.dtype == torch.uint8
    assert whole.shape == (100, 3, 8, 8)
    counts = torch.bincount(whole.flatten().long(), minlength=256).float()
    expected = whole.numel() / 256
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 170 < chi2 < 360  # 255 degrees of freedom: mean 255, standard deviation 22.6
