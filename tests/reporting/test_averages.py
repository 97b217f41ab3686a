"""Scores against the length of the weight average: order, lengths and differences by hand; table, figure and page."""

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from pipeline_lib.reporting import averages, figures, report, tables
from tests.reporting.compared_tree import Grown, values

DRAWN = {"sampler": "ancestral", "nfe": [10], "images": 100}
SCORES = {"ancestral": 4.0, "mean-wraw": 9.0, "mean-wshort": 3.5}  # less the seed, but for raw
KEPT = {
    "ema_decay": 0.99,
    "ema_warmup": False,
    "batch_size": 8,
    "averages": {"short": {"decay": 0.9}, "raw": {"decay": 0}},
}


@pytest.fixture
def begun(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Grown:
    """Nothing is trained yet."""
    monkeypatch.chdir(tmp_path)
    given = values([0, 1])
    about = given["methods"]["ddpm"]
    about["variants"] = {"paper": {"preset": "paper"}}
    about["run"] = {"training": KEPT}
    grid = {"w": {"key": "weights", "values": ["raw", "short"]}}
    sampling = {"ancestral": DRAWN, "mean": {**DRAWN, "control": "ancestral", "grid": grid}}
    changes = {"comparisons": {}, "sweeps": {}, "sampling": sampling}
    return Grown([0, 1], methods={"ddpm": about}, **changes)


@pytest.fixture
def tree(begun: Grown) -> Grown:
    grown = begun.complete()
    for seed in (0, 1):
        for sampler, value in SCORES.items():
            less = 0 if sampler == "mean-wraw" else seed
            grown.score(f"digits/ddpm/paper/s{seed}/{sampler}", {10: value - less}, low=value - 2, high=value + 1)
    return grown


def test_lines_rise_in_length_and_are_compared_with_the_main_average(tree: Grown) -> None:
    rows = averages.measure(tree.experiment, tree.tables)
    assert list(rows["average"]) == ["raw", "raw", "short", "short", "ema", "ema"]
    assert rows["halflife_images"].unique() == pytest.approx([0, 52.63, 551.7], rel=1e-3)  # 8 ln 2 / -ln(decay)
    assert list(rows["value"]) == [9.0, 9.0, 3.5, 2.5, 4.0, 3.0]
    shown = averages.shown(rows, tree.experiment)
    assert list(shown["half-life, images"]) == ["0", "52.63", "551.7"]
    assert list(shown["difference to the main average"]) == ["5.5 [-0.853, 11.9]", "-0.5 [-0.5, -0.5]", ""]


def test_before_the_first_score_tables_figures_and_report_are_written_all_the_same(begun: Grown) -> None:
    for stage in (tables, figures, report):
        stage.run(begun.folder, begun.experiment)
    assert "No data yet." in (begun.folder / "tables/averages.md").read_text()
    assert (begun.folder / "report.html").is_file()


def test_it_is_in_the_tables_the_figures_and_the_report(tree: Grown) -> None:
    for stage in (tables, figures, report):
        stage.run(tree.folder, tree.experiment)
    assert "| raw | 0 | 9 ± 0 | 2 | 5.5 [-0.853, 11.9] |" in (tree.folder / "tables/averages.md").read_text()
    page = (tree.folder / "report.html").read_text()
    assert "Length of the weight average" in page
    assert "-0.5 [-0.5, -0.5]" in page
    drawn = (tree.folder / "figures/averages.svg").read_text()
    assert all(f">{text}<" in drawn for text in ("half-life of the weight average, images", "0", "552", "DDPM"))


def test_numbers_at_ticks_do_not_overlap() -> None:
    _, panel = plt.subplots(figsize=(4.4, 3.1), layout="constrained")
    averages._lengths(panel, pd.Series([0.0, 52.6, 865.0, 1010.0]))
    panel.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in panel.get_xticklabels()]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["0", "53", "865"]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    plt.close(panel.figure)


def test_without_such_samplings_there_is_no_section(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = Grown([0]).complete()
    tables.run(tree.folder, tree.experiment)
    report.run(tree.folder, tree.experiment)
    assert "Length of the weight average" not in (tree.folder / "report.html").read_text()
    assert not (tree.folder / "tables/averages.csv").exists()
