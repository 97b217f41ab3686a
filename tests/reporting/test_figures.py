"""Figures show the numbers, and are the same bytes twice."""

import subprocess
import sys

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from pipeline_lib.reporting import before_after, figures
from pipeline_lib.reporting.collect import collect
from pipeline_lib.reporting.style import COLOURS, DASHES

PLACES = [-10.0, -5.0, 0.0, 5.0, 6.8]  # log-SNR; x_0 stands 12 % of the range behind the last
BEFORE, AFTER = "before: the control", "after: the method"


def test_empty_tree_says_so(tree):
    built = tree()
    figures.run(built.folder, built.experiment)
    assert "no data yet" in (built.folder / "figures/fig2.svg").read_text()
    assert "no data yet" in (built.folder / "figures/fig3.svg").read_text()
    assert "no data yet" in (built.folder / "figures/training.svg").read_text()
    assert (built.folder / "figures/fig2.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_that_the_workflow_waits_for_are_drawn_even_without_data(tree):
    built = tree()
    figures.run(built.folder, built.experiment)
    drawn = {p.name for p in (built.folder / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in built.plan.figures for kind in ("svg", "png")}
    assert "fig3" in built.plan.figures


def test_same_bytes_twice_and_text_is_text(tree):
    built = tree(seeds=(0,)).complete()
    figures.run(built.folder, built.experiment)
    first = {p.name: p.read_bytes() for p in (built.folder / "figures").iterdir()}
    names = ("fig2", "fig2-ancestral-per-t", "fig3", "fig3-gaussian", "training", "anatomy-digits")
    assert set(first) == {f"{n}.{k}" for n in names for k in ("svg", "png")}
    figures.run(built.folder, built.experiment)
    assert first == {p.name: p.read_bytes() for p in (built.folder / "figures").iterdir()}
    text = first["fig2.svg"].decode()
    assert all(words in text for words in ("digits, 20 calls", ">laplace<", "DDPM", "80 % power at x₀ from 1.1e-02"))
    assert "dc:date" not in text


def test_torch_is_not_imported_for_what_is_trained() -> None:
    """It takes seconds in each of the three jobs; only exact errors need it."""
    code = "import sys; from pipeline_lib.reporting import figures, report, tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_curve_is_the_mean_over_seeds_against_the_log_snr(tree):
    built = tree().complete()
    errors = collect(built.folder, built.experiment)["cumulative_error"]
    higher = errors["seed"].eq(1)
    errors.loc[higher, "mmd2"] += 0.002
    drawing = figures.drawings(built.experiment)[0]
    rows = errors[errors["bandwidth"] == drawing.bandwidth]
    figure = figures.cumulative_error(rows, built.experiment)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["DDPM"].get_xdata()) == pytest.approx(PLACES)
    assert list(lines["DDPM"].get_ydata()) == pytest.approx([0.001, 0.002, 0.023, 0.024, 0.025])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()][-1] == "x₀"
    assert list(lines["null, 95 % quantile"].get_ydata()) == [0.01] * 5
    plt.close(figure)


def test_main_drawing_comes_first(tree):
    experiment = tree().experiment
    assert [(d.name, d.bandwidth) for d in figures.drawings(experiment)] == [
        ("fig2", "shared"),
        ("fig2-ancestral-per-t", "per-t"),
    ]


def test_colours_follow_the_plan_and_not_the_alphabet(tree):
    experiment = tree().experiment
    again = {**experiment, "methods": dict(reversed(experiment["methods"].items()))}
    assert figures.style(again, "ddpm", "base") == (COLOURS[0], DASHES[0])
    assert figures.style(again, "other", "base") == (COLOURS[1], DASHES[0])


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def drawn(built):
    found = collect(built.folder, built.experiment)
    errors, differences = found["cumulative_error"], found["cumulative_error_difference"]
    return before_after.before_after(errors, differences, built.experiment, "laplace")


def test_before_and_after_stand_in_one_panel_with_both_laws(tree):
    built = tree(seeds=(0,)).complete()
    built.draw("other", 0, 4.0, 1, own=True)
    figure = drawn(built)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Other\nless DDPM\ndigits, ancestral, 20 calls", ""]
    found = lines(figure)
    before, after, own = (found[k] for k in (BEFORE, AFTER, "after, against training inputs"))
    assert list(before.get_ydata()) == pytest.approx([0, 0.001, 0.022, 0.023, 0.024])
    assert list(after.get_ydata()) == pytest.approx([0, 0.001, 0.002, 0.003, 0.024])
    assert list(own.get_ydata()) == pytest.approx([0, 0.001, 0.002, 0.003])
    assert list(own.get_xdata()) == PLACES[:-1]
    assert len({line.get_color() for line in (before, after, own)}) == 3
    assert len(figure.axes[0].collections) == 3  # bands of both curves of the method, and the null
    assert figure.axes[0].texts[0].get_text() == "power at x₀ 1.1e-02"
    plt.close(figure)


def test_the_curve_against_training_inputs_is_not_in_figure_2(tree):
    built = tree(seeds=(0,)).complete()
    figures.run(built.folder, built.experiment)
    first = (built.folder / "figures/fig2.svg").read_bytes()
    built.draw("other", 0, 4.0, 1, own=True)
    figures.run(built.folder, built.experiment)
    assert (built.folder / "figures/fig2.svg").read_bytes() == first
    assert "against training inputs" in (built.folder / "figures/fig3.svg").read_text()


def test_a_method_without_a_control_is_in_no_pair(tree):
    experiment = tree().experiment
    assert before_after.pairs(experiment) == [(("other", "base"), ("ddpm", "base"))]


def test_a_figure_of_a_control_that_is_no_more_goes(tree):
    built = tree(seeds=(0,)).complete()
    figures.run(built.folder, built.experiment)
    built.experiment["methods"]["other"]["variants"]["base"]["control"] = None
    figures.run(built.folder, built.experiment)
    assert not list((built.folder / "figures").glob("fig3*"))


def test_after_is_drawn_while_its_control_has_no_curve(tree):
    built = tree(seeds=(0,)).complete()
    built.fail("digits/ddpm/base/s0/train")
    figure = drawn(built)
    assert set(lines(figure)) == {AFTER, "null, 95 % quantile"}
    plt.close(figure)


def test_every_method_with_a_control_has_its_own_column(tree):
    built = tree(seeds=(0,)).complete()
    experiment = built.experiment
    variants = {"base": {"preset": None, "control": "other/base"}}
    experiment["methods"]["third"] = {"label": "Third", "samplings": ["ancestral"], "variants": variants}
    one = next(i for i in experiment["instances"] if i["method"] == "other")
    experiment["instances"].append({**one, "method": "third"})
    found = collect(built.folder, built.experiment)
    errors, differences = found["cumulative_error"], found["cumulative_error_difference"]
    more = pd.concat([errors, errors[errors["method"].eq("other")].assign(method="third")])
    figure = before_after.before_after(more, differences, experiment, "laplace")
    first, second, _, unpaired = figure.axes
    assert second.get_title(loc="left").startswith("Third\nless Other\n")
    assert first.get_ylim() == second.get_ylim()
    assert [text.get_text() for text in unpaired.texts] == ["not paired"]  # the third has no influences
    plt.close(figure)


def test_the_difference_stands_below_with_its_band_around_a_line_at_zero(tree):
    figure = drawn(tree(seeds=(0,)).complete())
    upper, panel = figure.axes
    assert panel.get_ylabel() == "difference"
    line = next(line for line in panel.lines if line.get_label().startswith("difference, paired by chain"))
    assert line.get_color() not in {other.get_color() for other in upper.lines}
    assert list(line.get_xdata()) == pytest.approx(PLACES)
    assert list(line.get_ydata()) == pytest.approx([0, 0, -0.02, -0.02, 0])
    low, high = panel.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == pytest.approx((-0.02 - 1.96 * 0.0005, 1.96 * 0.0005), rel=1e-4)
    assert [list(one.get_ydata()) for one in panel.lines if len(one.get_ydata()) == 2] == [[0, 0]]
    assert panel.texts[0].get_text() == f"power at x₀ {(1.96 + 0.8416) * 0.0005:.1e}"
    plt.close(figure)


def test_without_a_paired_difference_its_panel_says_so(tree):
    built = tree(seeds=(0,)).complete()
    (built.folder / "digits/ddpm/base/s0/ancestral/errors/influences.parquet").unlink()
    figure = drawn(built)
    assert [text.get_text() for text in figure.axes[1].texts] == ["not paired"]
    plt.close(figure)


def history(**losses: float) -> pd.DataFrame:
    rows = [{"step": n, "images": 8 * n, "key": k, "value": v / n} for n in (1, 2) for k, v in losses.items()]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("other", "drawn"), [("loss/simple", "simple term"), ("loss/own", "total")])
def test_losses_are_compared_by_what_all_methods_have(tree, other, drawn):
    rows = {
        ("digits", "ddpm", "base", 0): history(**{"loss": 4.0, "loss/simple": 4.0}),
        ("digits", "other", "base", 0): history(**{"loss": 9.0, other: 5.0}),
    }
    figure = figures.training(rows, tree().experiment)
    assert figure.axes[0].get_ylabel() == f"training loss, {drawn}"
    last = 2.5 if drawn == "simple term" else 4.5
    assert [list(line.get_ydata())[-1] for line in figure.axes[0].lines] == [2.0, last]
    plt.close(figure)
