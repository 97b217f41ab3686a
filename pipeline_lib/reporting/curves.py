"""Panels of MMD^2 along the sampling chain: what Fig. 2 and Fig. 3 of Li and van der Schaar (2024) have in common.

The axis is the log-SNR, on which noise levels of all paths compare; t would put nearly all steps of an EDM path into
one corner. x_0 is clean data, whose log-SNR is infinite: it stands at a place of its own at the right end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, legend
from pipeline_lib.reporting.summaries import POWER, detectable

XLABEL = "log-SNR, nats  (sampling runs →)"
MANY = 4  # curves of a panel from which on bands and single seeds would cover each other, and are left out
MARGIN = 0.12  # of the range of the axis, between the last noise level and x_0


@dataclass(frozen=True)
class Line:
    """One curve of every panel of a strip: rows of one run and forward law, over kernels and seeds."""

    name: str
    rows: pd.DataFrame
    colour: str
    dash: Any
    band: bool = True

    def of(self, kernel: str) -> "Line":
        """Its rows of one kernel."""
        return replace(self, rows=self.rows[self.rows["kernel"].eq(kernel)])


@dataclass(frozen=True)
class Strip:
    """A row of panels, one for each kernel."""

    name: str
    lines: list[Line]


@dataclass(frozen=True)
class Axis:
    """The log-SNR axis that all panels of a figure share; `clean` is where x_0 stands."""

    low: float
    high: float
    clean: float

    def places(self, log_snr: "pd.Series[float]") -> "pd.Series[float]":
        """Where steps of these log-SNR stand."""
        return log_snr.replace(np.inf, self.clean)

    def label(self, axes: Axes) -> None:
        """Ticks of noise levels, and one of x_0."""
        ticks = [v for v in MaxNLocator(4, integer=True).tick_values(self.low, self.high) if self.low <= v <= self.high]
        axes.set_xticks([*ticks, self.clean], [*(f"{v:g}".replace("-", "\N{MINUS SIGN}") for v in ticks), "x₀"])
        margin = 0.02 * (self.clean - self.low)
        axes.set_xlim(self.low - margin, self.clean + margin)


def axis(log_snr: "pd.Series[float]") -> Axis:
    """The axis for steps of these log-SNR."""
    finite = log_snr[np.isfinite(log_snr)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return Axis(low, high, high + MARGIN * ((high - low) or 1.0))


def panels(strips: Sequence[Strip], kernels: Sequence[str]) -> Figure:
    """A row of panels for each strip, a column for each kernel that was measured."""
    rows = pd.concat([line.rows for strip in strips for line in strip.lines])
    measured, common = set(rows["kernel"]), axis(rows["log_snr"])
    shown = [k for k in kernels if k in measured]
    size = (max(3.4, 2.35 * len(shown)), (1.95 if len(strips) < 4 else 1.6) * len(strips) + 1.0)
    figure, axes = plt.subplots(len(strips), len(shown), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for strip, row in zip(strips, axes, strict=True):
        for kernel, panel in zip(shown, row, strict=True):
            draw(panel, [line.of(kernel) for line in strip.lines], common)
            panel.set_title(kernel, loc="left", pad=14)  # leaves room for the axis' power of ten
            power(panel, pd.concat([line.of(kernel).rows for line in strip.lines]))
        row[0].set_ylabel(f"{strip.name}\nMMD²")
    for panel in axes[-1]:
        panel.set_xlabel(XLABEL)
    legend(figure, axes.flat)
    return figure


def style(experiment: Mapping[str, Any], method: str, variant: str) -> tuple[str, Any]:
    """Colour and dash of a method's variant: the same in every figure of an experiment."""
    place = list(dict.fromkeys((i["method"], i["variant"]) for i in experiment["instances"])).index((method, variant))
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def draw(axes: Axes, lines: Sequence[Line], common: Axis) -> None:
    """Curves over their null."""
    for line in lines:
        curve(axes, line, common, alone=len(lines) <= MANY)
    _null(axes, pd.concat([line.rows for line in lines]), common)
    common.label(axes)


def power(axes: Axes, rows: pd.DataFrame, words: str = f"{100 * POWER:g} % power at x₀ from") -> None:
    """Above the panel, the smallest effect that would be seen at the end of the chains, after `words`."""
    known = rows.assign(smallest=detectable(rows)).dropna(subset="smallest")
    smallest = known.loc[known["step"].eq(known["step"].max()), "smallest"].median()
    text = "null not drawn" if pd.isna(smallest) else f"{words} {smallest:.1e}"
    axes.text(1, 1.03, text, transform=axes.transAxes, fontsize=6.5, color=GREY, ha="right", va="bottom")


def _null(axes: Axes, rows: pd.DataFrame, common: Axis) -> None:
    known = rows[rows["null_quantile"].notna()]
    null = known["null_quantile"].groupby(common.places(known["log_snr"]).round(3)).median()
    if len(null):
        level = f"null, {100 * rows['confidence'].iloc[0]:g} % quantile"
        axes.plot(null.index, null, ls=":", lw=1, color=GREY, label=level, zorder=1)
        axes.fill_between(null.index, 0, null, color="#d9d9d9", lw=0, zorder=0)


def curve(axes: Axes, line: Line, common: Axis, alone: bool = True) -> None:
    """Mean over seeds; `alone`: also the confidence interval of one estimate and, thin, each seed.

    Seeds share their sampling noise and forward samples, so their spread alone would understate the uncertainty.
    """
    rows, colour = line.rows, line.colour
    points = _at_steps(rows, common).agg(
        x=("x", "mean"), y=("mmd2", "mean"), low=("low", "mean"), high=("high", "mean")
    )
    axes.plot(points["x"], points["y"], color=colour, ls=line.dash, label=line.name, zorder=3)
    if alone and line.band:
        axes.fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.18, lw=0, zorder=2)
    for _, one in rows.groupby("seed") if alone and rows["seed"].nunique() > 1 else []:
        each = _at_steps(one, common).agg(x=("x", "mean"), y=("mmd2", "mean"))
        axes.plot(each["x"], each["y"], color=colour, ls=line.dash, lw=0.5, alpha=0.7, zorder=3)


def _at_steps(rows: pd.DataFrame, common: Axis) -> Any:
    """Rows grouped by step, with their place x on the axis."""
    return rows.assign(x=common.places(rows["log_snr"])).groupby("step")
