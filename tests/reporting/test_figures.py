"""Figures show the numbers, and are the same bytes twice."""

import matplotlib.pyplot as plt
import pytest

from pipeline_lib.reporting import figures
from pipeline_lib.reporting.collect import collect


def test_empty_tree_says_so(tree):
    built = tree()
    figures.run(built.folder, built.experiment)
    assert "no data yet" in (built.folder / "figures/fig2.svg").read_text()
    assert "no data yet" in (built.folder / "figures/training.svg").read_text()
    assert (built.folder / "figures/fig2.png").read_bytes().startswith(b"\x89PNG")


def test_same_bytes_twice_and_text_is_text(tree):
    built = tree(seeds=(0,)).complete()
    figures.run(built.folder, built.experiment)
    first = {p.name: p.read_bytes() for p in (built.folder / "figures").iterdir()}
    assert set(first) == {f"{n}.{k}" for n in ("fig2", "fig2-ancestral-per-t", "training") for k in ("svg", "png")}
    figures.run(built.folder, built.experiment)
    assert first == {p.name: p.read_bytes() for p in (built.folder / "figures").iterdir()}
    text = first["fig2.svg"].decode()
    assert all(words in text for words in ("digits, 20 calls", ">laplace<", "DDPM", "detectable from 1.0e-02"))
    assert "dc:date" not in text


def test_curve_is_the_mean_over_seeds_against_falling_t(tree):
    built = tree().complete()
    errors = collect(built.folder, built.experiment)["cumulative_error"]
    higher = errors["seed"].eq(1)
    errors.loc[higher, "mmd2"] += 0.002
    drawing = figures.drawings(built.experiment)[0]
    rows = errors[errors["bandwidth"] == drawing.bandwidth]
    figure = figures.cumulative_error(rows, built.experiment, drawing)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["DDPM"].get_xdata()) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert list(lines["DDPM"].get_ydata()) == pytest.approx([0.001, 0.002, 0.023, 0.024, 0.025])
    left, right = figure.axes[0].get_xlim()
    assert left > right
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
    assert figures.style(again, "ddpm", "base") == (figures.COLOURS[0], figures.DASHES[0])
    assert figures.style(again, "other", "base") == (figures.COLOURS[1], figures.DASHES[0])
