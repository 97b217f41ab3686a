"""Paired differences with their intervals, published scores, costs, and why a cell is empty."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline_lib.records.published import INCEPTION
from pipeline_lib.records.tables import COMPARISON, SCORES, read, write
from pipeline_lib.reporting import comparisons, report, tables
from tests.reporting.compared_tree import METRIC, Grown, values
from tests.reporting.test_report import Page


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compared(tree: Grown, rows: tuple[str, ...] = ("ddpm/paper", "reg/paper")) -> pd.DataFrame:
    """Rows at 100 network calls, by method/variant."""
    found = comparisons.compare(tree.folder, tree.experiment, tree.tables, [r.split("/") for r in rows])
    found = found[found["nfe"].eq(100)]
    return found.set_index(found["method"] + "/" + found["variant"])


def test_rows_hold_score_difference_and_costs() -> None:
    rows = compared(Grown([0, 1]).complete())
    assert list(rows.index) == ["ddpm/paper", "reg/paper"]
    control, mine = rows.loc["ddpm/paper"], rows.loc["reg/paper"]
    assert (control["mean"], control["seeds"], mine["mean"]) == (4.0, 2, 2.5)  # 3, 5 and 2, 3
    assert control["sd"] == pytest.approx(2**0.5)
    assert pd.isna(control["difference"])
    assert (mine["control"], mine["pairs"], mine["difference"]) == ("ddpm/paper", 2, -1.5)
    half = stats.t.ppf(0.975, 1) * np.std([-1, -2], ddof=1) / 2**0.5
    assert [mine["low"], mine["high"], mine["half_width"]] == pytest.approx([-1.5 - half, -1.5 + half, half])
    assert (mine["steps"], mine["step_seconds"], mine["images"]) == (190, pytest.approx(0.01), 1520)
    assert (mine["step_cpu_seconds"], mine["step_seconds_sd"]) == (pytest.approx(0.008), 0)
    assert mine["peak_memory_mb"] == 110
    assert mine["note"] == ""


def test_seeds_in_another_order_pair_alike() -> None:
    scores = {0: (3.0, 2.5), 1: (5.0, 4.9), 2: (4.0, 3.0)}
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        tree = Grown(order)
        for seed in order:
            tree.run("ddpm/paper", seed, scores[seed][0])
            tree.run("reg/paper", seed, scores[seed][1])
        found.append(compared(tree).loc["reg/paper", ["difference", "low", "high"]].astype(float))
    assert found[0].tolist() == pytest.approx(found[1].tolist())
    assert found[0]["difference"] == pytest.approx((-0.5 - 0.1 - 1.0) / 3)


def test_images_in_the_time_of_the_control() -> None:
    tree = Grown([0])
    tree.run("ddpm/paper", 0, 4.0, step_ms=10)
    tree.run("reg/paper", 0, 3.0, step_ms=40)
    rows = compared(tree)
    assert rows.loc["reg/paper", "images_in_control_time"] == pytest.approx(1520 / 4)
    assert pd.isna(rows.loc["ddpm/paper", "images_in_control_time"])
    costs = [tree.folder / f"digits/{who}/paper/s0/train/costs.json" for who in ("ddpm", "reg")]
    costs[0].write_text(costs[0].read_text().replace('"cpu"', '"A (shared)"'))
    assert pd.isna(compared(tree).loc["reg/paper", "images_in_control_time"])
    costs[1].write_text(costs[1].read_text().replace('"cpu"', '"A (shared)"'))  # nor where neighbours slowed both
    assert pd.isna(compared(tree).loc["reg/paper", "images_in_control_time"])


def test_speed_is_that_of_all_common_seeds_together() -> None:
    """3040 images in 190 (10 + 40) ms, and a control that takes 190 * 20 ms on average; seed 2 has no control."""
    tree = Grown([0, 1, 2])
    for seed, mine, other in ((0, 10, 10), (1, 40, 30), (2, 1, None)):
        tree.run("reg/paper", seed, 3.0, step_ms=mine)
        if other:
            tree.run("ddpm/paper", seed, 4.0, step_ms=other)
    row = compared(tree).loc["reg/paper"]
    assert row["images_in_control_time"] == pytest.approx(3040 / 50 * 20)
    assert row["step_seconds"] == pytest.approx(0.017)
    assert row["step_seconds_sd"] == pytest.approx(np.std([0.01, 0.04, 0.001], ddof=1))
    assert row["peak_memory_mb"] == 140


def test_a_gpu_has_its_own_memory_and_no_cpu_time() -> None:
    tree = Grown([0])
    tree.run("ddpm/paper", 0, 4.0)
    costs = tree.folder / "digits/ddpm/paper/s0/train/costs.json"
    costs.write_text(costs.read_text().replace('"cpu"', '"a GPU", "peak_gpu_memory_mb": 7'))
    row = compared(tree).loc["ddpm/paper"]
    assert row["peak_memory_mb"] == 7
    assert pd.isna(row["step_cpu_seconds"])
    assert row["step_seconds"] == pytest.approx(0.01)


def test_a_start_from_other_weights_is_charged_and_said() -> None:
    methods = values([0])["methods"]
    methods["reg"]["variants"]["tuned"] = {"preset": "paper", "control": "ddpm/paper", "init_from": "reg/long"}
    methods["reg"]["variants"]["long"] = {"preset": "paper", "init_from": "ddpm/paper"}
    tree = Grown([0, 1], methods=methods)
    for seed in (0, 1):
        tree.run("ddpm/paper", seed, 4.0, step_ms=10)
        tree.run("reg/long", seed, 4.0, step_ms=20)
        tree.run("reg/tuned", seed, 3.0, step_ms=50)
    rows = compared(tree, ("ddpm/paper", "reg/long", "reg/tuned"))
    assert rows["steps"].tolist() == [190, 380, 570]
    assert rows["images"].tolist() == [1520, 3040, 4560]
    assert rows["step_seconds"].tolist() == pytest.approx([0.01, 0.02, 0.05])  # of its own steps
    assert rows.loc["reg/tuned", "images_in_control_time"] == pytest.approx(4560 / 80 * 10)
    assert rows["note"].tolist() == [
        "",
        "starts from ddpm/paper, which had 190 steps (they count as its own)",
        "starts from reg/long, which had 380 steps (they count as its own)",
    ]


def test_a_start_that_is_not_trained_yet_is_named() -> None:
    methods = values([0])["methods"]
    methods["reg"]["variants"]["tuned"] = {"preset": "paper", "init_from": "ddpm/paper"}
    tree = Grown([0], methods=methods)
    assert compared(tree, ("reg/tuned",))["note"].tolist() == ["seed 0: pending, not run yet; starts from ddpm/paper"]


def test_one_seed_has_no_interval_and_says_so() -> None:
    tree = Grown([0]).complete()
    mine = compared(tree).loc["reg/paper"]
    assert (mine["seeds"], mine["difference"], mine["note"]) == (1, -1.0, "one seed")
    assert mine[["sd", "low", "high", "half_width"]].isna().all()
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    assert "No method shares two seeds with its control" in section.notes[-1]


def test_missing_cells_say_why() -> None:
    tree = Grown([0, 1, 2])
    tree.run("ddpm/paper", 0, 4.0)
    tree.run("reg/paper", 1, 3.0)
    tree.fail("reg/paper", 0, "the loss is not finite at step 12.")
    rows = compared(tree)
    mine = rows.loc["reg/paper"]
    assert (mine["mean"], mine["seeds"], mine["pairs"]) == (3.0, 1, 0)
    assert mine["note"] == (
        "seed 0: failed, the loss is not finite at step 12.; seed 2: pending, not run yet; one seed; "
        "the control has no score for these seeds"
    )
    assert rows.loc["ddpm/paper", "note"] == "seed 1, 2: pending, not run yet; one seed"


def test_a_failed_method_keeps_its_rows() -> None:
    tree = Grown([0, 1])
    tree.run("ddpm/paper", 0, 4.0)
    for seed in (0, 1):
        tree.fail("reg/paper", seed, "it broke.")
    mine = compared(tree).loc["reg/paper"]
    assert (mine["metric"], mine["seeds"], mine["note"]) == (METRIC, 0, "seed 0, 1: failed, it broke.")
    assert pd.isna(mine["mean"])
    assert pd.isna(mine["verdict"])
    assert pd.isna(mine["step_seconds"])


def test_nothing_is_there_yet() -> None:
    rows = compared(Grown([0]))
    assert len(rows) == 2
    assert set(rows["note"]) == {"seed 0: pending, not run yet"}


def test_another_dataset_is_not_comparable() -> None:
    mine = compared(Grown([0]).complete()).loc["ddpm/paper"]
    assert pd.isna(mine["published"])
    assert mine["elsewhere"] == "cifar10 FID 3.61, imagenet32 FID 3.62, celeba64 FID 1.73"
    assert (mine["tag"], mine["verdict"]) == ("memory, medium to high", "not comparable: dataset")
    assert mine["source"] == "Li and van der Schaar (2024), Table 1, DDPM"


def test_the_measured_protocol_decides() -> None:
    tree = Grown([0, 1, 2])
    tree.experiment["recipes"]["digits"] = "cifar10"
    tree.experiment["methods"]["ddpm"]["variants"]["paper"]["published"] = "li2024/table1/adm-ip"
    tree.experiment["samplings"]["ancestral"]["nfe"] = [100, 1000]
    protocol = {"metric": "FID", "extractor": INCEPTION, "samples": 50_000, "reference_images": 50_000}
    for seed, value in enumerate((3.24, 3.25, 3.26)):
        tree.run("ddpm/paper", seed, {1000: value, 100: value}, **protocol)
    rows = comparisons.compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
    rows = rows[rows["metric"].eq("FID")].set_index("nfe")
    assert rows.loc[1000, ["published", "tag", "verdict"]].tolist() == [3.25, "found", "within tolerance"]
    assert rows.loc[100, "verdict"] == "not comparable: NFE 1000 (here 100)"
    for seed in range(3):
        tree.run("ddpm/paper", seed, {1000: 4.0 + 0.01 * seed, 100: 4.0}, **protocol)
    rows = comparisons.compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
    assert set(rows.loc[rows["nfe"].eq(1000) & rows["metric"].eq("FID"), "verdict"]) == {"differs"}


def test_seeds_that_agree_do_not_confirm_a_score_that_samples_leave_open() -> None:
    """3.25 in two seeds to a hundredth, of an interval over samples of +- 0.5: 4 % of 3.25 is 0.13."""
    tree = Grown([0, 1])
    tree.experiment["recipes"]["digits"] = "cifar10"
    tree.experiment["methods"]["ddpm"]["variants"]["paper"]["published"] = "li2024/table1/adm-ip"
    tree.experiment["samplings"]["ancestral"]["nfe"] = [1000]
    protocol = {"metric": "FID", "extractor": INCEPTION, "samples": 50_000, "reference_images": 50_000}
    for half, said in ((0.5, "undecided"), (0.05, "within tolerance")):
        for seed, value in enumerate((3.2495, 3.2505)):
            tree.run("ddpm/paper", seed, {1000: value}, **protocol, low=value - half, high=value + half)
        rows = comparisons.compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
        assert set(rows.loc[rows["metric"].eq("FID"), "verdict"]) == {said}


def test_the_note_states_the_half_width() -> None:
    tree = Grown([0, 1]).complete()
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    half = stats.t.ppf(0.975, 1) / 2
    assert section.notes[0] == "On digits."
    assert f"ancestral at 100 network calls: {METRIC} on digits {half:.3g} (2 paired seeds)." in section.notes[-1]


def test_shared_columns_are_said_once() -> None:
    tree = Grown([0, 1]).complete()
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    shared = f"dataset digits, preset paper, sampler ancestral, metric {METRIC}, seeds 2"
    assert f"In all rows: {shared}." in section.notes
    assert list(section.shown["score"])[:2] == ["4 ± 1.4", "2.5 ± 0.71"]
    assert section.shown["difference"].iloc[1].startswith("-1.5 [-7.85, 4.85")
    assert "dataset" not in section.shown
    numbers = "cifar10 FID 3.61, imagenet32 FID 3.62, celeba64 FID 1.73"
    told = f"Published in other settings (not comparable: dataset): DDPM {numbers} [memory, "
    assert section.beneath[0].endswith("memory, recollected and never checked, and how sure it is.")
    assert [text.startswith(told) for text in section.beneath] == [True]
    assert list(section.trainings["method"]) == ["DDPM", "Regularised (paper)"]  # costs, once for all their cells
    assert section.trainings["seconds a step"].str.startswith("0.01").all()
    assert not {"published", "seconds a step"} & set(section.shown)


def pending(tree: Grown, notes: dict[str, str]) -> Grown:
    """FID of every cell is pending, for a reason of each run."""
    for who, why in notes.items():
        for record in tree.folder.glob(f"digits/{who}/s*/ancestral/scores/scores.parquet"):
            rows = read(record, SCORES)
            more = rows.assign(metric="FID", value=None, status="pending", note=why)
            write(record, pd.concat([rows, more.astype(rows.dtypes)]), SCORES)
    return tree


def test_a_metric_that_is_pending_throughout_is_said_once() -> None:
    tree = pending(Grown([0, 1]).complete(), dict.fromkeys(("ddpm/paper", "reg/paper"), "no weights."))
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    assert section.beneath[1:] == ["FID on digits: pending, no weights."]
    assert len(section.shown) == 4
    assert len(section.rows) == 8
    assert f"metric {METRIC}" in " ".join(section.notes)
    tables.run(tree.folder, tree.experiment)
    text = (tree.folder / "tables/table1.md").read_text()
    assert text.count("no weights.") == 1
    assert text.partition(f"## {comparisons.TRAININGS}")[0].rstrip().endswith("no weights.")


def test_a_metric_that_is_pending_for_different_reasons_keeps_its_rows() -> None:
    tree = pending(Grown([0, 1]).complete(), {"ddpm/paper": "no weights.", "reg/paper": "another reason."})
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    assert not [text for text in section.beneath if text.startswith("FID")]
    assert "seed 0, 1: pending, another reason." in set(section.shown["note"])


def test_one_seed_says_nothing_of_trainings_and_what_it_says_of_these_networks() -> None:
    tree = Grown([0]).complete()
    rows = comparisons.compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"], ["reg", "paper"]])
    said = comparisons.half_width_note(rows, tree.experiment)
    assert said == "No method shares two seeds with its control, so no difference says anything of other trainings."
    mine = rows["method"].eq("reg")
    rows.loc[mine, ["difference_sample_low", "difference_sample_high"]] = [(-2.0, -0.5), (-1.0, 0.5)]
    said = comparisons.half_width_note(rows, tree.experiment)
    assert "1 of 2 differences have a 95 % interval over samples that excludes 0; of equal ones 0.1 would." in said


@pytest.mark.parametrize(("low", "high", "wider"), [(-1.91, 0.247, 1.0785), (-0.84, -0.82, 0.04)])
def test_the_half_width_is_that_of_the_wider_interval(low: float, high: float, wider: float) -> None:
    """Two seeds, whose t-interval has the half-width 0.04."""
    spread = 0.04 / stats.t.ppf(0.975, 1)
    mine, other = pd.Series([-0.83 - spread, -0.83 + spread]), pd.Series([0.0, 0.0])
    over_samples = SimpleNamespace(low=low, high=high, seeds=2)
    assert comparisons.difference(mine, other, over_samples)["half_width"] == pytest.approx(wider)
    one = comparisons.difference(mine[:1], other, SimpleNamespace(low=low, high=high, seeds=1))
    assert np.isnan(one["half_width"])


def test_differences_from_the_control_stand_beneath_the_table() -> None:
    methods = values([0])["methods"]
    methods["reg"]["run"] = {"training": {"lr": 1e-3}}
    tree = Grown([0], methods=methods)
    said = "reg/paper (digits): differs from its control ddpm/paper in training.lr, too."
    report.run(tree.folder, tree.experiment)
    assert said in Page((tree.folder / "report.html").read_text()).text
    tables.run(tree.folder, tree.experiment)
    assert said in (tree.folder / "tables/table1.md").read_text()


def test_files_have_the_declared_columns_and_the_same_bytes_twice() -> None:
    tree = Grown([0, 1]).complete()
    tables.run(tree.folder, tree.experiment)
    names = [tree.folder / f"tables/table1.{kind}" for kind in ("parquet", "csv", "md")]
    first = [path.read_bytes() for path in names]
    assert list(read(names[0], COMPARISON).columns) == [c.name for c in COMPARISON]
    assert b"# Methods" in first[2]
    assert b"not comparable" in first[2]
    tables.run(tree.folder, tree.experiment)
    assert [path.read_bytes() for path in names] == first


@pytest.mark.parametrize("complete", [True, False])
def test_the_report_has_a_section(complete: bool) -> None:
    tree = Grown([0, 1])
    if complete:
        tree.complete()
    report.run(tree.folder, tree.experiment)
    page = Page((tree.folder / "report.html").read_text())
    assert "comparisons" in page.ids
    assert {"tables/table1.csv", "tables/fig4.csv", "tables/weights.csv"} <= set(page.links)
    assert ("-1.5 [-7.85, 4.85" in page.text) == complete
    assert ("pending, not run yet" in page.text) == (not complete)


def test_without_comparisons_there_is_no_section() -> None:
    tree = Grown([0], comparisons={}, sweeps={})
    report.run(tree.folder, tree.experiment)
    assert "comparisons" not in Page((tree.folder / "report.html").read_text()).ids


def test_other_scores_of_a_cell_are_in_no_comparison() -> None:
    tree = Grown([0, 1]).complete()
    before = compared(tree)
    for record in tree.folder.glob("digits/*/*/s*/ancestral/scores/scores.parquet"):
        rows = read(record, SCORES)
        others = [rows.assign(metric=name, value=0.9) for name in ("precision (x)", "KID", "FD-infinity (x)")]
        write(record, pd.concat([rows, *others]), SCORES)
    pd.testing.assert_frame_equal(compared(tree), before)


@pytest.mark.parametrize(("seeds", "shown"), [([0], "3 [2.5, 3.75]"), ([0, 1], "4 ± 1.4")])
def test_one_seed_has_the_interval_over_samples(seeds: list[int], shown: str) -> None:
    tree = Grown(seeds).complete()
    for seed in seeds:
        tree.run("ddpm/paper", seed, 3.0 + 2 * seed, low=2.5, high=3.75)
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    assert section.shown["score"].iloc[0] == shown
