"""Scores against training: at equal images and equal GPU-seconds by hand, and what is said where there is no value."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipeline_lib.records.tables import PROGRESS, PROGRESS_INFLUENCES, write
from pipeline_lib.reporting import figures, findings, progress, report, tables
from tests.reporting.compared_tree import METRIC, Grown, _score, values

N = 50
NOISE = np.random.default_rng(0).normal(size=N)
Build = Callable[..., Grown]


@pytest.fixture
def grown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A tree whose DDPM and regularised DDPM are finished and keep a snapshot at half of their 190 steps."""
    monkeypatch.chdir(tmp_path)

    def build(seeds: tuple[int, ...] = (0, 1), **more: dict[str, dict[str, Any]]) -> Grown:
        """`more`: further variants of a method, or other keys of its first."""
        given = values(list(seeds))
        for name, method in given["methods"].items():
            first = {**method["variants"]["paper"], "published": None}
            method["variants"] = {"paper": first}
            for variant, keys in more.get(name, {}).items():
                method["variants"][variant] = {"preset": "paper", **method["variants"].get(variant, {}), **keys}
            method["run"] = {"training": {"snapshots": [0.5]}}
        return Grown(list(seeds), methods=given["methods"], sweeps={}).complete()

    return build


def climb(tree: Grown, who: str, seed: int, scores: list[float], seconds: list[float], **more: Any) -> None:
    """The record of a training: scores at steps 95 and 190, whose images share their influences.

    `images` are those seen at the two.
    """
    place = tree.folder / f"digits/{who}/s{seed}/ancestral/progress"
    about = {"nfe": 100, "device": "cpu", "host": "here", "se": 0.1, "low": 0.0, "high": 9.0, "samples": N, **more}
    steps, images = (95, 190), about.pop("images", (760, 1520))
    rows = [
        {**_score(100, value), **about, "step": step, "images_seen": seen, "gpu_seconds": spent}
        for step, value, seen, spent in zip(steps, scores, images, seconds, strict=True)
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
    assert (seconds["low_snapshots"], seconds["high_snapshots"]) == (3.0 - 4.5, 6.0 - 4.5)
    assert images["low_snapshots"] == images["high_snapshots"] == images["difference"]  # both ended there


@pytest.mark.parametrize(("apart", "said"), [(0.0, "higher for"), (1.0, "not told apart in 1 of 1 cells.")])
def test_findings_say_who_is_behind_at_equal_costs(grown: Build, apart: float, said: str) -> None:
    tree = grown()
    for seed in (0, 1):
        climb(tree, "ddpm/paper", seed, [8.0, 4.0 + apart * seed], [10.0, 20.0])
        climb(tree, "reg/paper", seed, [6.0, 3.0], [15.0, 45.0])
    (sentence,) = findings.at_equal_costs(compared(tree).reset_index(), "seconds", tree.experiment)
    assert sentence.startswith(f"{METRIC} at equal seconds less that of the control, over training seeds")
    assert f"alike, is {said}" in sentence
    assert ("calls: +1.5 [1.5, 1.5] after 20 s)" in sentence) == (not apart)


def test_a_faster_method_is_compared_where_it_ended(grown: Build) -> None:
    tree = grown(seeds=(0,))
    climb(tree, "ddpm/paper", 0, [8.0, 4.0], [10.0, 20.0])
    climb(tree, "reg/paper", 0, [6.0, 3.0], [7.5, 15.0])
    row = compared(tree).loc["gpu-seconds"]
    assert (row["budget"], row["value"], row["control_value"]) == (15.0, 3.0, 6.0)
    assert (row["low_snapshots"], row["high_snapshots"]) == (3.0 - 8.0, 3.0 - 4.0)
    assert np.isnan(row["low"])


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (None, progress.NO_CONTROL),
        ({"seconds": [10.0, 20.0], "host": "there"}, progress.OTHER_HOST),
        ({"seconds": [10.0, 20.0], "host": "here + there"}, progress.OTHER_HOST),
        ({"seconds": [10.0, 20.0], "device": "A"}, f"{progress.OTHER_DEVICE} (cpu against A)"),
        ({"seconds": [np.nan, np.nan], "device": ""}, progress.UNKNOWN),
        ({"seconds": [1.0, 2.0]}, progress.TOO_EARLY),
    ],
    ids=["no control", "other host", "several hosts", "other device", "no seconds", "too early"],
)
def test_why_there_is_no_value(grown: Build, control: dict[str, Any] | None, said: str) -> None:
    tree = grown(seeds=(0,))
    climb(tree, "reg/paper", 0, [6.0, 3.0], [15.0, 45.0])
    if control:
        climb(tree, "ddpm/paper", 0, [8.0, 4.0], **control)
    row = compared(tree).loc["gpu-seconds"]
    assert (row["note"], np.isnan(row["value"])) == (said, True)


def test_gpus_of_one_model_compare_on_any_host(grown: Build) -> None:
    """Not those of a training that went on on another model, even where its control did so, too."""
    tree = grown(seeds=(0, 1))
    for seed, device in ((0, "A"), (1, "A + B")):
        climb(tree, "ddpm/paper", seed, [8.0, 4.0], [10.0, 20.0], device=device, host="one")
        climb(tree, "reg/paper", seed, [6.0, 3.0], [15.0, 45.0], device=device, host="two + three")
    row = compared(tree).loc["gpu-seconds"]
    assert (row["seeds"], row["value"]) == (1, 5.5)
    assert row["note"] == f"without seed 1: {progress.OTHER_DEVICE} (A + B)"


def test_seeds_that_are_left_out_are_said(grown: Build) -> None:
    tree = grown(seeds=(0, 1, 2, 3))
    for seed in (0, 1, 2, 3):
        if seed != 2:
            climb(tree, "reg/paper", seed, [6.0, 3.0], [15.0, 45.0])
        if seed != 3:
            climb(tree, "ddpm/paper", seed, [8.0, 4.0], [10.0, 20.0], host="there" if seed == 1 else "here")
    rows = compared(tree)
    absent = [f"without seed 2: {progress.NO_SCORES}", f"without seed 3: {progress.NO_CONTROL}"]
    assert rows.loc["images", ["seeds", "note"]].tolist() == [2, "; ".join(absent)]
    other = f"without seed 1: {progress.OTHER_HOST}"
    assert rows.loc["gpu-seconds", ["seeds", "note"]].tolist() == [1, "; ".join([other, *absent])]
    shown = progress.shown(rows.reset_index(), tree.experiment, tree.tables)
    assert shown["seeds"].tolist() == [2, 1]
    assert other in shown["note"][1]


def spent(tree: Grown, who: str, **costs: Any) -> None:
    """Costs of a training that has ended."""
    path = tree.folder / f"digits/{who}/s0/train/costs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "here"} | costs))


@pytest.fixture
def tuned(grown: Build) -> Grown:
    """Regularised training from the weights of a training that itself started from another's; a longer control.

    Each of the three sees 1520 images, the first two in 5 s each.
    """
    tree = grown(
        seeds=(0,),
        ddpm={"more": {"init_from": "ddpm/paper"}, "longer": {"run": {"training": {"steps": 570}}}},
        reg={"paper": {"init_from": "ddpm/more", "control": "ddpm/longer"}},
    )
    for who in ("ddpm/paper", "ddpm/more"):
        spent(tree, who, gpu_seconds=5.0)
    climb(tree, "reg/paper", 0, [6.0, 3.0], [15.0, 45.0])
    climb(tree, "ddpm/longer", 0, [8.0, 4.0], [20.0, 60.0], images=(2280, 4560))
    return tree


def test_a_fine_tuned_training_pays_for_what_it_started_from(tuned: Grown) -> None:
    """It ends at 3 * 1520 images and 10 + 45 s, where its control has 4.5."""
    rows = compared(tuned)
    images, seconds = rows.loc["images"], rows.loc["gpu-seconds"]
    assert (images["budget"], images["value"], images["control_value"]) == (4560, 3.0, 4.0)
    assert (seconds["budget"], seconds["value"], seconds["control_value"]) == (55.0, 3.0, 4.5)
    assert seconds["note"] == "counts ddpm/more, which it starts from"
    assert "| 190 | 4560 | 55 |" in progress.text(tuned.folder, tuned.experiment, tuned.tables)


def test_what_the_start_was_trained_on_counts_too(tuned: Grown) -> None:
    spent(tuned, "ddpm/paper", device="A")
    row = compared(tuned).loc["gpu-seconds"]
    assert row["note"].startswith(f"{progress.OTHER_DEVICE} (cpu + A against cpu)")
    spent(tuned, "ddpm/paper", gpu_seconds=None)
    row = compared(tuned).loc["gpu-seconds"]
    assert row["note"].startswith(progress.UNKNOWN)
    assert compared(tuned).loc["images", "value"] == 3.0


def test_two_that_start_from_the_same_weights_both_count_them(grown: Build) -> None:
    start = {"init_from": "ddpm/paper"}
    tree = grown(seeds=(0,), ddpm={"longer": start}, reg={"paper": {**start, "control": "ddpm/longer"}})
    spent(tree, "ddpm/paper", gpu_seconds=5.0)
    climb(tree, "ddpm/longer", 0, [8.0, 4.0], [10.0, 20.0])
    climb(tree, "reg/paper", 0, [6.0, 3.0], [15.0, 45.0])
    row = compared(tree).loc["gpu-seconds"]
    assert (row["budget"], row["value"], row["control_value"]) == (25.0, 5.5, 4.0)
    assert row["note"] == "both count ddpm/paper, which they start from"


def test_beside_its_own_start_a_fine_tuned_training_comes_too_late(grown: Build) -> None:
    tree = grown(seeds=(0,), reg={"paper": {"init_from": "ddpm/paper"}})
    for who in ("reg/paper", "ddpm/paper"):
        climb(tree, who, 0, [6.0, 3.0], [15.0, 45.0])
    assert compared(tree).loc["images", "note"].startswith(progress.TOO_EARLY)


def test_the_snapshots_around_bound_what_the_line_and_its_intervals_miss(grown: Build) -> None:
    """A score of 4000 / s after s seconds, read off at 400 s between snapshots at 100 and 1000 s: the line says 28, the
    truth is 10."""
    tree = grown(seeds=(0,))
    climb(tree, "ddpm/paper", 0, [8.0, 4.0], [200.0, 400.0])
    climb(tree, "reg/paper", 0, [40.0, 4.0], [100.0, 1000.0])
    row, truth = compared(tree).loc["gpu-seconds"], 10.0 - 4.0
    assert row["value"] == pytest.approx(28.0)
    assert not row["low_samples"] <= truth <= row["high_samples"]
    assert row["low_snapshots"] <= truth <= row["high_snapshots"]
    assert (
        "[0, 36]"
        in progress.shown(compared(tree).reset_index(), tree.experiment, tree.tables)["at the snapshots around"][1]
    )


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
    read = [*(tree.folder / "tables").glob("*.md"), tree.folder / "report.html"]
    assert not [path for path in read if re.search("gpu[ _-]seconds", path.read_text(), re.IGNORECASE)]
    assert "| seconds (CPU) |" in shown
    assert "<td>seconds (CPU)</td>" in page
    assert "| seconds of training (CPU) |" in (tree.folder / "tables/progress.md").read_text()
    assert "gpu_seconds" in points
    assert (tree.folder / "figures/progress.svg").read_text().count("seconds of training (CPU)") == 1


def test_many_strips_have_a_legend_each(grown: Build) -> None:
    """One for all would lie below everything; and seconds of a strip are those of its devices."""
    tree = grown()
    climb(tree, "ddpm/paper", 0, [8.0, 4.0], [1e5, 2e5], device="H200")
    climb(tree, "reg/paper", 0, [6.0, 3.0], [1e5, 2e5])
    rows = tree.tables["progress"]

    def drawn(samplers: int) -> Figure:
        copies = [rows.assign(sampler=f"s{i}") for i in range(samplers)]
        return progress.figure(tree.experiment, {**tree.tables, "progress": pd.concat(copies)})

    few, many = drawn(progress.FEW), drawn(progress.FEW + 1)
    assert [axes.get_legend() for axes in few.axes] == [None] * 2 * progress.FEW
    assert len(few.legends) == 1
    assert not many.legends
    names = {tuple(text.get_text() for text in axes.get_legend().get_texts()) for axes in many.axes[1::2]}
    assert names == {("DDPM", "Regularised")}
    assert {axes.get_xlabel() for axes in many.axes[1::2]} == {"seconds of training (CPU or GPU)"}
    assert many.axes[1].xaxis.get_major_formatter()(2e5) == "200 k"


def test_without_snapshots_there_is_no_section(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = Grown([0]).complete()
    tables.run(tree.folder, tree.experiment)
    report.run(tree.folder, tree.experiment)
    assert "Scores against training" not in (tree.folder / "report.html").read_text()
    assert not (tree.folder / "tables/progress.csv").exists()
