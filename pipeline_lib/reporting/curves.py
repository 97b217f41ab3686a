"""Panels of MMD^2 along the sampling chain: what Fig. 2 and Fig. 3 of Li and van der Schaar (2024) have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, legend
from pipeline_lib.reporting.summaries import POWER, detectable


@dataclass(frozen=True)
class Line:
    """One curve of every panel of a strip: rows of one run and forward law, over kernels and seeds."""

    name: str
    rows: pd.DataFrame
    colour: str
    dash: Any

    def of(self, kernel: str) -> "Line":
        """Its rows of one kernel."""
        return replace(self, rows=self.rows[self.rows["kernel"].eq(kernel)])


@dataclass(frozen=True)
class Strip:
    """A row of panels, one for each kernel."""

    name: str
    lines: list[Line]
    of: Literal["MMD²", "difference"] = "MMD²"


def panels(strips: Sequence[Strip], kernels: Sequence[str]) -> Figure:
    """A row of panels for each strip, a column for each kernel that was measured."""
    measured = {k for strip in strips for line in strip.lines for k in line.rows["kernel"].unique()}
    shown = [k for k in kernels if k in measured]
    size = (max(3.4, 2.35 * len(shown)), 1.95 * len(strips) + 1.0)
    figure, axes = plt.subplots(len(strips), len(shown), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for strip, row in zip(strips, axes, strict=True):
        for kernel, axis in zip(shown, row, strict=True):
            _panel(axis, [line.of(kernel) for line in strip.lines], kernel, strip.of)
        row[0].set_ylabel(f"{strip.name}\n{strip.of}")
    for axis in axes[-1]:
        axis.set_xlabel("t / first t  (sampling runs →)")
    legend(figure, axes.flat)
    return figure


def style(experiment: Mapping[str, Any], method: str, variant: str) -> tuple[str, Any]:
    """Colour and dash of a method's variant: the same in every figure of an experiment."""
    place = list(dict.fromkeys((i["method"], i["variant"]) for i in experiment["instances"])).index((method, variant))
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def _panel(axes: Axes, lines: Sequence[Line], title: str, of: str) -> None:
    for line in lines:
        _curve(axes, line)
    rows = pd.concat([line.rows for line in lines])
    if of == "difference":
        axes.axhline(0, ls=":", lw=1, color=GREY, zorder=1)
    else:
        _null(axes, rows)
    axes.set_xlim(1.02, -0.02)
    axes.set_title(title, loc="left", pad=14)  # leaves room for the axis' power of ten
    smallest = detectable(rows[rows["step"].gt(0)]).median()
    words = "null not drawn" if pd.isna(smallest) else f"{100 * POWER:g} % power from {smallest:.1e}"
    axes.text(1, 1.03, words, transform=axes.transAxes, fontsize=6.5, color=GREY, ha="right", va="bottom")


def _null(axes: Axes, rows: pd.DataFrame) -> None:
    null = _at_steps(rows[rows["null_quantile"].notna()]).agg(x=("x", "mean"), y=("null_quantile", "median"))
    if len(null):
        level = f"null, {100 * rows['confidence'].iloc[0]:g} % quantile"
        axes.plot(null["x"], null["y"], ls=":", lw=1, color=GREY, label=level, zorder=1)
        axes.fill_between(null["x"], 0, null["y"], color="#d9d9d9", lw=0, zorder=0)


def _curve(axes: Axes, line: Line) -> None:
    """Mean over seeds and the confidence interval of one estimate; thin, each seed.

    Seeds share their sampling noise and forward samples, so their spread alone would understate the uncertainty.
    """
    rows, colour = line.rows, line.colour
    points = _at_steps(rows).agg(x=("x", "mean"), y=("mmd2", "mean"), low=("low", "mean"), high=("high", "mean"))
    axes.plot(points["x"], points["y"], color=colour, ls=line.dash, label=line.name, zorder=3)
    axes.fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.18, lw=0, zorder=2)
    for _, one in rows.groupby("seed") if rows["seed"].nunique() > 1 else []:
        each = _at_steps(one).agg(x=("x", "mean"), y=("mmd2", "mean"))
        axes.plot(each["x"], each["y"], color=colour, ls=line.dash, lw=0.5, alpha=0.7, zorder=3)


def _at_steps(rows: pd.DataFrame) -> Any:
    """Rows grouped by step, with x = t over the first t of their own chain."""
    start = rows.groupby(["dataset", "method", "variant", "seed"])["t"].transform("max")
    return rows.assign(x=rows["t"] / start).groupby("step")
