"""Reasons of a dry run, grouped by rule."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import entry
from pipeline_lib.records.tables import SCORES, write
from pipeline_lib.why import AFTER, reasons

SAID = """
[Sun Nov 22 11:34:25 2026]
rule train:
    input: a/config.json
    reason: {0}
    wildcards: seed=0
rule train:
    reason: {0}
localrule report:
    reason: Missing output files: r.html; Input files updated by another job: a, b
rule all:
    reason: Input files updated by another job: a
"""


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("Missing output files: a/manifest.json", "its output is not there"),
        ("Updated input files: a/train/config.json", "its configuration changed"),
        ("Updated input files: a/data/manifest.json", "an input changed"),
        ("Input files updated by another job: a", AFTER),
        ("Params have changed since last execution: before: 1 now: 2", "its parameters changed"),
        ("Code has changed since last execution; Input files updated by another job: a", "the rule's code changed"),
        ("Something new: of a later Snakemake", "Something new"),
    ],
)
def test_reasons_are_counted_by_rule(reason: str, why: str) -> None:
    found = Counter(reasons(SAID.format(reason)))
    assert found == {("train", why): 2, ("report", "its output is not there"): 1}


def why(place: Path, made: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The reason where a stage's folder holds a result of one configuration, and another is asked for."""
    if place.name == "scores":
        write(place / "scores.parquet", [], SCORES, {"config": made})
    else:
        store = entry(place.name, 1, made)
        store.folder.mkdir(parents=True)
        store.finish([], {}).save(place / "manifest.json")
    write_json(place / "config.json", {"config": wanted})
    files = f"results/x/data/manifest.json, {place}/config.json"
    ((_, said),) = set(reasons(f"rule any:\n    reason: Updated input files: {files}; Code has changed\n"))
    return said


TRAINED = {"seed": 0, "training": {"steps": 100, "lr": 1e-3, "averages": {}}, "objective": {"name": "ddpm"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"steps": 200, "lr": 1e-3, "averages": {}}}, ": training.steps 100 -> 200"),
        ({"objective": {"name": "reg", "c": 0.1}}, ": objective.c none -> 0.1, objective.name ddpm -> reg"),
        (
            {"training": {"steps": 100, "lr": 1e-3, "averages": {"a": [1] * 40}}},
            ": training.averages.a",
        ),
        ({"seed": 1, "training": {"steps": 1, "lr": 1, "ema": 1}}, ": seed 0 -> 1, training.ema .* and 1 more"),
        ({"nfe": [10]}, ""),  # not in the identity, so nothing is known of what it was
    ],
)
@pytest.mark.parametrize("stage", ["train", "scores"])
def test_the_keys_that_changed_are_named(stage: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = why(tmp_path / stage, TRAINED, {**TRAINED, **changes})
    assert re.fullmatch(f"its configuration changed{said}", found)


def test_without_what_it_was_made_from_no_key_is_named(tmp_path: Path) -> None:
    said = why(tmp_path / "train", TRAINED, {**TRAINED, "seed": 1})
    assert said.endswith("seed 0 -> 1")
    for lost in Path("results/store").glob("train-*/identity.json"):
        lost.unlink()
    write_json(tmp_path / "train/config.json", {"config": TRAINED})
    reason = f"rule train:\n    reason: Updated input files: {tmp_path}/train/config.json\n"
    assert dict(reasons(reason)) == {"train": "its configuration changed"}
