"""Paired differences with their intervals, published scores, costs, and why a cell is empty."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline_lib.records.published import INCEPTION
from pipeline_lib.records.tables import COMPARISON, read
from pipeline_lib.reporting import comparisons, report, tables
from pipeline_lib.reporting.comparisons import half_width, paired
from tests.reporting.compared_tree import METRIC, Grown
from tests.reporting.test_report import Page


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compared(tree: Grown, rows: tuple[str, ...] = ("ddpm/paper", "reg/paper")) -> pd.DataFrame:
    """Rows at 100 network calls, by method/variant."""
    found = comparisons.compare(tree.folder, tree.experiment, tree.tables, [r.split("/") for r in rows])
    found = found[found["nfe"].eq(100)]
    return found.set_index(found["method"] + "/" + found["variant"])


def test_interval_is_that_of_the_paired_t_test() -> None:
    mine = pd.Series([3.1, 2.7, 3.4, 2.2], index=[0, 1, 2, 3])
    control = pd.Series([3.5, 3.6, 3.3, 3.0], index=[0, 1, 2, 3])
    found, test = paired(mine, control), stats.ttest_rel(mine, control)
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high, found.pairs) == (pytest.approx(low), pytest.approx(high), 4)
    assert found.mean == pytest.approx(-0.5)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_interval_of_two_pairs_by_hand() -> None:
    found = paired(pd.Series([1.0, 3.0]), pd.Series([0.0, 0.0]))
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(12.7062047)  # t_{0.975, 1} = 12.706, sd / sqrt(2) = 1


def test_the_order_of_seeds_changes_nothing() -> None:
    mine, control = pd.Series([1.0, 5.0, 2.0], index=[0, 1, 2]), pd.Series([2.0, 5.5, 3.1], index=[0, 1, 2])
    again = paired(mine, control.iloc[::-1])
    assert again == paired(mine, control)
    assert paired(mine.iloc[[2, 0, 1]], control).half_width == pytest.approx(again.half_width)


def test_only_common_seeds_are_paired() -> None:
    found = paired(pd.Series([1.0, 5.0], index=[0, 1]), pd.Series([9.0, 5.5], index=[7, 1]))
    assert (found.mean, found.pairs) == (-0.5, 1)
    assert np.isnan(found.low)
    assert np.isnan(found.half_width)


def test_spread_of_a_mean() -> None:
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=1 / np.sqrt(3))
    assert half_width(pd.Series([1.0, 2.0, 3.0])) == pytest.approx((high - low) / 2)
    assert np.isnan(half_width(pd.Series([1.0])))


def test_rows_hold_score_difference_and_costs() -> None:
    rows = compared(Grown([0, 1]).complete())
    assert list(rows.index) == ["ddpm/paper", "reg/paper"]
    control, mine = rows.loc["ddpm/paper"], rows.loc["reg/paper"]
    assert (control["mean"], control["seeds"], mine["mean"]) == (4.0, 2, 2.5)  # 3, 5 and 2, 3
    assert control["sd"] == pytest.approx(2**0.5)
    assert pd.isna(control["difference"])
    assert (mine["control"], mine["pairs"], mine["difference"]) == ("ddpm/paper", 2, -1.5)
    half = stats.t.ppf(0.975, 1) * np.std([-1, -2], ddof=1) / 2**0.5
    assert [mine["low"], mine["high"], mine["detectable"]] == pytest.approx([-1.5 - half, -1.5 + half, half])
    assert (mine["steps"], mine["step_seconds"], mine["images"]) == (190, pytest.approx(0.01), 1520)
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
    costs = tree.folder / "digits/ddpm/paper/s0/train/costs.json"
    costs.write_text(costs.read_text().replace('"cpu"', '"another device"'))
    assert pd.isna(compared(tree).loc["reg/paper", "images_in_control_time"])


def test_one_seed_has_no_interval_and_says_so() -> None:
    tree = Grown([0]).complete()
    mine = compared(tree).loc["reg/paper"]
    assert (mine["seeds"], mine["difference"], mine["note"]) == (1, -1.0, "one seed")
    assert mine[["sd", "low", "high", "detectable"]].isna().all()
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
    assert mine["elsewhere"] == "cifar10 3.61, imagenet32 3.62, celeba64 1.73"
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


def test_the_note_states_the_smallest_detectable_difference() -> None:
    tree = Grown([0, 1]).complete()
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    half = stats.t.ppf(0.975, 1) / 2
    assert section.notes[0] == "On digits."
    assert f"ancestral at 100 network calls: {half:.4g} in {METRIC} on digits (2 paired seeds)." in section.notes[-1]


def test_shared_columns_are_said_once() -> None:
    tree = Grown([0, 1]).complete()
    (section,) = comparisons.sections(tree.folder, tree.experiment, tree.tables)
    assert f"In all rows: dataset digits, preset paper, sampler ancestral, metric {METRIC}, seeds 2." in section.notes
    assert list(section.shown["score"])[:2] == ["4 ± 1.4", "2.5 ± 0.71"]
    assert section.shown["difference"].iloc[1].startswith("-1.5 [-7.85, 4.85")
    assert "dataset" not in section.shown


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
