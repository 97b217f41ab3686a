"""Lines and heat maps of a sweep show the numbers of its table."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from pipeline_lib.records.tables import SWEEP, read
from pipeline_lib.reporting import figures, sweeps, tables
from pipeline_lib.reporting.comparisons import compare
from pipeline_lib.reporting.style import GREY, STYLE
from tests.reporting.compared_tree import Grown

FLOOR = 2.0
SCORES = {1: (4.0, 4.2), 2: (3.0, 3.4), 5: (2.0, 2.6)}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def grown(lost: tuple[int, ...] = ()) -> Grown:
    """Scores that fall with L, a step of 10 + 2 L ms; the control scores 4 and 5."""
    tree = Grown([0, 1])
    for seed in (0, 1):
        tree.run("ddpm/paper", seed, 4.0 + seed, step_ms=10)
        for length, values in SCORES.items():
            if length not in lost:
                tree.run(f"reg/sweep-L{length}", seed, {100: values[seed], 10: 2 * values[seed]}, 10 + 2 * length)
    return tree


def drawn(tree: Grown, name: str) -> Figure:
    """The figure of a sweep."""
    sweep, found = tree.experiment["sweeps"][name], tree.tables
    rows = sweeps.measure(tree.folder, tree.experiment, found, sweep)
    controls = compare(tree.folder, tree.experiment, found, [["ddpm", "paper"]])
    figure = (sweeps.heat_map if sweep["y"] else sweeps.lines)(rows, controls, found["scores"], sweep)
    plt.close(figure)
    return figure


def texts(axes: Any) -> list[str]:
    return [t.get_text() for t in axes.texts]


def test_rows_have_their_place() -> None:
    tree = grown()
    rows = sweeps.measure(tree.folder, tree.experiment, tree.tables, tree.experiment["sweeps"]["fig4"])
    rows = rows[rows["nfe"].eq(100)]
    assert list(rows.columns) == [c.name for c in SWEEP]
    assert rows["x"].tolist() == [1, 2, 5]
    assert rows["mean"].tolist() == pytest.approx([4.1, 3.2, 2.3])
    assert rows["difference"].tolist() == pytest.approx([-0.4, -1.3, -2.2])
    assert rows["step_seconds"].tolist() == pytest.approx([0.012, 0.014, 0.020])
    assert set(rows["line"]) == {"reg"}
    assert rows["y"].isna().all()


def test_lines_are_means_with_the_control_and_the_floor() -> None:
    score, fewer, time, *_ = drawn(grown(), "fig4").axes
    lines = {line.get_label(): line for line in score.lines}
    (container,) = score.containers
    points = container.lines[0]
    assert list(points.get_xdata()) == [1, 2, 5]
    assert list(points.get_ydata()) == pytest.approx([4.1, 3.2, 2.3])
    (segments,) = (bar.get_segments() for bar in container.lines[2])
    sd = stats.tstd(SCORES[1])
    assert segments[0][:, 1].tolist() == pytest.approx([4.1 - sd, 4.1 + sd])
    assert list(lines["control: DDPM"].get_ydata()) == [4.5, 4.5]
    assert list(lines["floor: held-out images"].get_ydata()) == [FLOOR, FLOOR]
    band = score.patches[0]
    assert (band.get_y(), band.get_height()) == (pytest.approx(4.5 - 0.5**0.5), pytest.approx(2 * 0.5**0.5))
    assert list(fewer.containers[0].lines[0].get_ydata()) == pytest.approx([8.2, 6.4, 4.6])
    assert [c.lines[0].get_ydata().tolist() for c in time.containers] == [
        pytest.approx([12, 14, 20]),
        pytest.approx([9.6, 11.2, 16]),  # CPU time
    ]
    assert [line.get_ydata()[0] for line in time.lines if line.get_color() == GREY] == pytest.approx([10, 8])


def test_differences_stand_below_with_their_interval() -> None:
    *_, difference, _, memory = drawn(grown(), "fig4").axes
    (container,) = difference.containers
    assert list(container.lines[0].get_ydata()) == pytest.approx([-0.4, -1.3, -2.2])
    (segments,) = (bar.get_segments() for bar in container.lines[2])
    half = stats.t.ppf(0.975, 1) * 0.4  # of -0 and -0.8
    assert segments[0][:, 1].tolist() == pytest.approx([-0.4 - half, -0.4 + half])
    assert [line.get_ydata()[0] for line in difference.lines if line.get_color() == GREY] == [0]
    assert list(memory.containers[0].lines[0].get_ydata()) == [112, 114, 120]


def test_the_half_widths_are_printed() -> None:
    tree = grown()
    rows = sweeps.measure(tree.folder, tree.experiment, tree.tables, tree.experiment["sweeps"]["fig4"])
    known = [stats.t.ppf(0.975, 1) * abs((b - 5) - (a - 4)) / 2 for a, b in SCORES.values()]
    assert rows.loc[rows["nfe"].eq(100), "half_width"].tolist() == pytest.approx(known)
    said = f"{min(known):.3g} to {max(known):.3g} (2 paired seeds)"
    assert f"half-width {said}" in texts(drawn(tree, "fig4").axes[3])
    assert said in " ".join(sweeps.sections(tree.folder, tree.experiment, tree.tables)[0].notes)


def test_one_seed_has_no_bars_and_says_so() -> None:
    figure = drawn(Grown([0]).complete(), "fig4")
    assert "too few paired seeds for an interval" in texts(figure.axes[3])
    assert not figure.axes[0].patches


def test_missing_points_are_counted_not_drawn() -> None:
    figure = drawn(grown(lost=(2,)), "fig4")
    assert list(figure.axes[0].containers[0].lines[0].get_xdata()) == [1, 5]
    assert "1 of 3 points without a score" in texts(figure.axes[0])


def test_a_control_without_scores_is_left_out() -> None:
    tree = Grown([0])
    for length in SCORES:
        tree.run(f"reg/sweep-L{length}", 0, 3.0)
    labels = [line.get_label() for line in drawn(tree, "fig4").axes[0].lines]
    assert not [name for name in labels if name.startswith("control")]


def test_cells_of_the_heat_map() -> None:
    tree = Grown([0, 1])
    for seed in (0, 1):
        tree.run("ddpm/paper", seed, 4.0 + seed)
        tree.run("reg/grid-lambda0.1-rho0", seed, 3.0 + 0.8 * seed)
        tree.run("reg/grid-lambda0.1-rho0.003", seed, 5.0 + seed)
        tree.run("reg/grid-lambda0.2-rho0.003", seed, 2.0 + 1.1 * seed)
        tree.fail("reg/grid-lambda0.2-rho0", seed, "it broke.")
    panel = drawn(tree, "weights").axes[0]
    half = stats.t.ppf(0.975, 1) * 0.1
    found = {t.get_position(): t.get_text() for t in panel.texts if t.get_transform() == panel.transData}
    assert found == {
        (0, 0): f"3.4\n-1.1 ± {half:.2g}",
        (0, 1): "5.5\n+1 ± 0",
        (1, 0): "no score",
        (1, 1): f"2.55\n-1.9 ± {half / 2:.2g}",
    }
    (image,) = panel.images
    assert image.get_array().tolist() == [[pytest.approx(3.4), None], [pytest.approx(5.5), pytest.approx(2.55)]]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["0.1", "0.2"]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["0", "0.003"]
    assert any(t.startswith("DDPM 4.5; floor 2; half-width 0") for t in texts(panel))


def test_a_cell_without_a_run_says_so() -> None:
    tree = grown()
    rows = sweeps.measure(tree.folder, tree.experiment, tree.tables, tree.experiment["sweeps"]["weights"])
    rows = rows[~(rows["x"].eq(0.2) & rows["y"].eq(0))]
    controls = compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
    figure = sweeps.heat_map(rows, controls, tree.tables["scores"], tree.experiment["sweeps"]["weights"])
    plt.close(figure)
    panel = figure.axes[0]
    found = {t.get_position(): t.get_text() for t in panel.texts if t.get_transform() == panel.transData}
    assert found == {(0, 0): "no score", (0, 1): "no score", (1, 0): "not run", (1, 1): "no score"}


def test_colours_do_not_magnify_chance() -> None:
    rows = pd.DataFrame({"mean": [3.0, 3.1], "half_width": [0.5, 0.5]})
    assert sweeps._colour_range(rows) == pytest.approx((2.55, 3.55))
    assert sweeps._colour_range(rows.assign(half_width=0.01)) == pytest.approx((3.0, 3.1))
    assert sweeps._colour_range(rows.assign(half_width=float("nan"))) == pytest.approx((3.0, 3.1))


def test_hand_written_variants_form_one_line() -> None:
    variants = {
        f"L{n}": {"control": "ddpm/paper", "preset": "paper", "run": {"objective": {"bootstrap_length": n}}}
        for n in (1, 5)
    }
    methods = {
        "ddpm": {"objective": "ddpm", "label": "DDPM", "variants": {"paper": {"preset": "paper"}}},
        "reg": {"objective": "ddpm-reg", "label": "Regularised", "variants": variants},
    }
    sweep = {"title": "Length", "rows": ["reg/L1", "reg/L5"], "x": "objective.bootstrap_length"}
    tree = Grown([0], methods=methods, comparisons={}, sweeps={"fig4": sweep}).complete()
    (container,) = drawn(tree, "fig4").axes[0].containers
    assert container.get_label() == "Regularised"
    assert list(container.lines[0].get_xdata()) == [1, 5]


def test_figures_are_the_same_bytes_twice() -> None:
    tree = Grown([0, 1]).complete()
    names = [tree.folder / f"figures/{name}.{kind}" for name in ("fig4", "weights") for kind in ("svg", "png")]
    first: list[bytes] = []
    for _ in range(2):
        with mpl.rc_context(STYLE):
            sweeps.draw(tree.folder, tree.experiment)
        found = [path.read_bytes() for path in names]
        first = first or found
        assert found == first
    assert b"bootstrap length" in first[0]


def test_without_results_there_are_tables_and_empty_figures() -> None:
    tree = Grown([0, 1])
    tables.run(tree.folder, tree.experiment)
    figures.run(tree.folder, tree.experiment)
    assert b"no data yet" in (tree.folder / "figures/fig4.svg").read_bytes()
    assert list(read(tree.folder / "tables/fig4.parquet", SWEEP)["x"]) == [1, 2, 5, 1, 2, 5]
    assert "pending, not run yet" in (tree.folder / "tables/fig4.md").read_text()
