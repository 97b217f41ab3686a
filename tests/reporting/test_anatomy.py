"""Figures and table of the anatomy show its numbers, and only where it is measured."""

import matplotlib.pyplot as plt
import pytest

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.reporting import anatomy, figures, report, tables
from pipeline_lib.reporting.collect import collect

from .conftest import _values


@pytest.fixture
def dissected(tree):
    """Two methods, two seeds of the first."""
    built = tree().complete()
    for method, seed in (("ddpm", 0), ("ddpm", 1), ("other", 0)):
        built.dissect(method, seed)
    return built


def lines(figure, title):
    """Name -> x and y of the curves of the panel with this title."""
    axes = next(a for a in figure.axes if a.get_title(loc="left") == title)
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_a_page_shows_the_first_seed(dissected):
    rows = collect(dissected.folder, dissected.experiment)["anatomy"]
    found = anatomy.cells(rows[rows["method"].eq("ddpm")], dissected.experiment)
    assert [line.name for line in found] == ["ancestral, 20 calls"]
    figure = anatomy.page(found)
    assert len([a for a in figure.axes if a.axison]) == 4  # a ratio, a spread, that after a leak, and a gain
    x, y = lines(figure, anatomy.RATIO.title)["ancestral, 20 calls"]
    assert x == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert y == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert lines(figure, anatomy.CHAIN.title)["ancestral, 20 calls"][1] == pytest.approx(y)  # those from T alone
    assert lines(figure, anatomy.GAIN.title)["ancestral, 20 calls"] == ([0.5], [pytest.approx(0.5)])
    for curve in (curve for panel in figure.axes for curve in panel.lines if len(curve.get_xdata()) == 1):
        assert curve.get_marker() == "o"  # a line of one point cannot be seen
    plt.close(figure)


def test_the_comparison_shows_means_over_seeds(dissected):
    rows = collect(dissected.folder, dissected.experiment)["anatomy"]
    figure = anatomy.comparison(rows, dissected.experiment)
    found = lines(figure, anatomy.RATIO.title)
    assert found["DDPM"][1] == pytest.approx([0.75, 0.6, 0.45, 0.3, 0.15])
    assert found["Other"][1] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    plt.close(figure)


def test_one_measure_has_a_figure_of_its_own_width_and_hidden_lines_are_seen(dissected):
    rows = collect(dissected.folder, dissected.experiment)["anatomy"]
    figure = anatomy.comparison(rows[rows["measure"].eq("eps-norm")], dissected.experiment)
    assert len(figure.axes) == 1
    assert figure.get_figwidth() < 4
    control, other = (line.get_linewidth() for line in figure.axes[0].lines[:2])
    assert control > other
    plt.close(figure)


def test_all_are_drawn_listed_and_in_the_report(dissected):
    figures.run(dissected.folder, dissected.experiment)
    drawn = {p.stem for p in (dissected.folder / "figures").glob("anatomy-*.svg")}
    assert drawn == {"anatomy-digits", "anatomy-digits-ddpm-base", "anatomy-digits-other-base"}
    assert drawn == {name for name, _ in anatomy.drawings(dissected.experiment)}
    assert "anatomy-digits" in dissected.plan.figures
    tables.run(dissected.folder, dissected.experiment)
    text = (dissected.folder / "tables/anatomy.md").read_text()
    assert "| digits | ddpm | base | ancestral | 20 | delta | gap-chain | 1 | 2 | 0.75 | 0.75 |" in text
    report.run(dissected.folder, dissected.experiment)
    page = (dissected.folder / "report.html").read_text()
    assert "2 more figures" in page
    assert "tables/anatomy.csv" in page


def test_an_experiment_without_it_has_no_trace_of_it(tree):
    built = tree().complete()
    plan = Plan(parse_experiment({**_values([0], []), "anatomy": {"measures": []}}))
    experiment = plan.summary()
    assert "anatomy" not in plan.tables
    assert not [name for name in plan.figures if name.startswith("anatomy")]
    figures.run(built.folder, experiment)
    tables.run(built.folder, experiment)
    report.run(built.folder, experiment)
    assert not [*built.folder.glob("figures/anatomy*"), *built.folder.glob("tables/anatomy*")]
    assert "Anatomy" not in (built.folder / "report.html").read_text()
