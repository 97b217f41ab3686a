"""Scores against training: at equal images and equal GPU-seconds by hand, and what is said where there is no value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.records.tables import PROGRESS, PROGRESS_INFLUENCES, write
from pipeline_lib.reporting import figures, progress, report, tables
from tests.reporting.compared_tree import METRIC, Grown, _score, values

N = 50
NOISE = np.random.default_rng(0).normal(size=N)
Build = Callable[..., Grown]


@pytest.fixture
def grown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A tree whose DDPM and regularised DDPM are finished and keep a snapshot at half of their 190 steps."""
    monkeypatch.chdir(tmp_path)

    def build(seeds: tuple[int, ...] = (0, 1)) -> Grown:
        given = values(list(seeds))
        for method in given["methods"].values():
            method["variants"] = {"paper": {**method["variants"]["paper"], "published": None}}
            method["run"] = {"training": {"snapshots": [0.5]}}
        return Grown(list(seeds), methods=given["methods"], sweeps={}).complete()

    return build


def climb(tree: Grown, who: str, seed: int, scores: list[float], seconds: list[float], **more: Any) -> None:
    """The record of a training: scores at steps 95 and 190, whose images share their influences."""
    place = tree.folder / f"digits/{who}/s{seed}/ancestral/progress"
    about = {"nfe": 100, "device": "cpu", "host": "here", "se": 0.1, "low": 0.0, "high": 9.0, "samples": N, **more}
    steps = (95, 190)
    rows = [
        {**_score(100, value), **about, "step": step, "images_seen": 8 * step, "gpu_seconds": spent}
        for step, value, spent in zip(steps, scores, seconds, strict=True)
    ]
    shares = [
        {"nfe": 100, "step": s, "metric": METRIC, "images": v * NOISE} for s, v in zip(steps, scores, strict=True)
    ]
    write(place / "progress.parquet", rows, PROGRESS)
    write(place / "influences.parquet", shares, PROGRESS_INFLUENCES)


def compared(tree: Grown) -> pd.DataFrame:
    return progress.equal_costs(tree.folder, tree.experiment, tree.tables).set_index("at")


def test_a_slower_method_is_read_off_where_its_control_ended(grown: Build) -> None:
    """Twice as slow at first, then more: at the control's 20 s it is a sixth of the way between its points."""
    tree = grown()
    for seed in (0, 1):
        climb(tree, "ddpm/paper", seed, [8.0, 4.0 + seed], [10.0, 20.0])
        climb(tree, "reg/paper", seed, [6.0, 3.0], [15.0, 45.0])
    rows = compared(tree)
    assert list(rows["control"]) == ["ddpm/paper"] * 2
    images, seconds = rows.loc["images"], rows.loc["gpu-seconds"]
    assert (images["budget"], images["value"], images["control_value"]) == (8 * 190, 3.0, 4.5)
    assert (seconds["budget"], seconds["value"], seconds["control_value"]) == (20.0, 5.5, 4.5)
    assert seconds["difference"] == pytest.approx(1.0)
    assert seconds["high"] - seconds["difference"] == pytest.approx(12.7062 * 0.5, rel=1e-5)  # sd of 1.5, 0.5
    half = 1.959964 * abs(5.5 - 4.5) * NOISE.std() / np.sqrt(N - 1)  # what the images share of both cancels
    assert seconds["high_samples"] - seconds["difference"] == pytest.approx(half, rel=0.05)


def test_a_faster_method_is_compared_where_it_ended(grown: Build) -> None:
    tree = grown(seeds=(0,))
    climb(tree, "ddpm/paper", 0, [8.0, 4.0], [10.0, 20.0])
    climb(tree, "reg/paper", 0, [6.0, 3.0], [7.5, 15.0])
    row = compared(tree).loc["gpu-seconds"]
    assert (row["budget"], row["value"], row["control_value"]) == (15.0, 3.0, 6.0)
    assert np.isnan(row["low"])


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (None, progress.NO_CONTROL),
        ({"seconds": [10.0, 20.0], "host": "there"}, progress.OTHER_MACHINE),
        ({"seconds": [np.nan, np.nan]}, progress.NO_SECONDS),
        ({"seconds": [1.0, 2.0]}, progress.TOO_EARLY),
    ],
    ids=["no control", "other machine", "no seconds", "too early"],
)
def test_why_there_is_no_value(grown: Build, control: dict[str, Any] | None, said: str) -> None:
    tree = grown(seeds=(0,))
    climb(tree, "reg/paper", 0, [6.0, 3.0], [15.0, 45.0])
    if control:
        climb(tree, "ddpm/paper", 0, [8.0, 4.0], **control)
    row = compared(tree).loc["gpu-seconds"]
    assert (row["note"], np.isnan(row["value"])) == (said, True)


def test_it_is_in_the_tables_the_figures_and_the_report(grown: Build) -> None:
    tree = grown()
    for seed in (0, 1):
        climb(tree, "ddpm/paper", seed, [8.0, 4.0 + seed], [10.0, 20.0])
        climb(tree, "reg/paper", seed, [6.0, 3.0], [15.0, 45.0])
    for stage in (tables, figures, report):
        stage.run(tree.folder, tree.experiment)
    shown = (tree.folder / "tables/equal_costs.md").read_text()
    assert "| 5.5 (control 4.5) |" in shown
    points = pd.read_parquet(tree.folder / "tables/progress.parquet")
    assert sorted(points["step"].unique()) == [95, 190]
    page = (tree.folder / "report.html").read_text()
    assert "Scores against training" in page
    assert "5.5 (control 4.5)" in page
    assert (tree.folder / "figures/progress.svg").read_text().count("GPU-seconds of training") == 1


def test_without_snapshots_there_is_no_section(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = Grown([0]).complete()
    tables.run(tree.folder, tree.experiment)
    report.run(tree.folder, tree.experiment)
    assert "Scores against training" not in (tree.folder / "report.html").read_text()
    assert not (tree.folder / "tables/progress.csv").exists()
