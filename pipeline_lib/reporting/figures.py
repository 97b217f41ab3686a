"""The figures stage: cumulative error along the chain (Li and van der Schaar, 2024, Fig. 2) and training curves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.exits import PipelineError
from pipeline_lib.records.tables import read
from pipeline_lib.reporting import theory_figures
from pipeline_lib.reporting.collect import collect, manifest
from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, STYLE, empty, legend, save
from pipeline_lib.reporting.summaries import label, main_bandwidth


@dataclass(frozen=True)
class Drawing:
    """One figure of the cumulative error: a sampling and a reading of the bandwidth, and the name of its files."""

    name: str
    sampler: str
    bandwidth: str

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.sampler}, bandwidth {self.bandwidth}"


def drawings(experiment: Mapping[str, Any]) -> list[Drawing]:
    """fig2 is the first sampling at the main bandwidth; the others carry theirs in their names."""
    main = main_bandwidth(experiment)
    readings = sorted(experiment["errors"]["bandwidths"], key=lambda b: b != main)
    found = [Drawing(f"fig2-{s}-{b}", s, b) for b in readings for s in experiment["samplings"]]
    return [Drawing("fig2", found[0].sampler, main), *found[1:]]


def run(folder: Path, experiment: dict[str, Any]) -> None:
    """Write `figures/{fig2,training}.{svg,png}` below `folder`, and a fig2-* for every other reading that has data.

    With an analytic section, also `figures/{theory,leak}`.
    """
    if experiment["analytic"]:
        with mpl.rc_context(STYLE):
            theory_figures.draw(folder, experiment)
    if not experiment["instances"]:
        return
    errors = collect(folder, experiment)["cumulative_error"]
    for old in (folder / "figures").glob("fig2-*"):  # of samplings that the experiment no longer has
        old.unlink()
    with mpl.rc_context(STYLE):
        for drawing in drawings(experiment):
            rows = _rows(errors, drawing)
            if len(rows) or drawing.name == "fig2":
                save(cumulative_error(rows, experiment, drawing), folder / "figures" / drawing.name)
        save(training(dict(histories(folder, experiment)), experiment), folder / "figures" / "training")


def _rows(errors: pd.DataFrame, drawing: Drawing) -> pd.DataFrame:
    return errors[errors["sampler"].eq(drawing.sampler) & errors["bandwidth"].eq(drawing.bandwidth)]


def cumulative_error(rows: pd.DataFrame, experiment: Mapping[str, Any], drawing: Drawing) -> Figure:
    """A row of panels per dataset and number of calls, a panel per kernel, a curve per method and variant."""
    if rows.empty:
        return empty("MMD² along the sampling chain")
    known = [(d, n) for d in experiment["datasets"] for n in sorted(set(rows.loc[rows["dataset"].eq(d), "nfe"]))]
    kernels = [k for k in experiment["errors"]["kernels"] if k in set(rows["kernel"])]
    size = (max(3.4, 2.35 * len(kernels)), 1.95 * len(known) + 1.0)
    figure, axes = plt.subplots(
        len(known), len(kernels), figsize=size, squeeze=False, sharex=True, layout="constrained"
    )
    for i, (dataset, nfe) in enumerate(known):
        for j, kernel in enumerate(kernels):
            panel = rows[rows["dataset"].eq(dataset) & rows["nfe"].eq(nfe) & rows["kernel"].eq(kernel)]
            _panel(axes[i, j], panel, experiment, kernel)
        axes[i, 0].set_ylabel(f"{dataset}, {nfe} calls\nMMD²")
    for axis in axes[-1]:
        axis.set_xlabel("t / first t  (sampling runs →)")
    legend(figure, axes.flat)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, experiment: Mapping[str, Any], title: str) -> None:
    for key, curve in rows.groupby(["method", "variant"], sort=False):
        method, variant = map(str, key)
        _curve(axes, curve, label(experiment, method, variant), *style(experiment, method, variant))
    null = _at_steps(rows[rows["null_quantile"].notna()]).agg(x=("x", "mean"), y=("null_quantile", "median"))
    if len(null):
        level = f"null, {100 * rows['confidence'].iloc[0]:g} % quantile"
        axes.plot(null["x"], null["y"], ls=":", lw=1, color=GREY, label=level, zorder=1)
        axes.fill_between(null["x"], 0, null["y"], color="#d9d9d9", lw=0, zorder=0)
    axes.set_xlim(1.02, -0.02)
    axes.set_title(title, loc="left", pad=14)  # leaves room for the axis' power of ten
    detectable = f"detectable from {null['y'].median():.1e}" if len(null) else "null not drawn"
    axes.text(1, 1.03, detectable, transform=axes.transAxes, fontsize=6.5, color=GREY, ha="right", va="bottom")


def _curve(axes: Axes, rows: pd.DataFrame, name: str, colour: str, dash: Any) -> None:
    """Mean over seeds and the confidence interval of one estimate; thin, each seed.

    Seeds share their sampling noise and forward samples, so their spread alone would understate the uncertainty.
    """
    points = _at_steps(rows).agg(x=("x", "mean"), y=("mmd2", "mean"), low=("low", "mean"), high=("high", "mean"))
    axes.plot(points["x"], points["y"], color=colour, ls=dash, label=name, zorder=3)
    axes.fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.18, lw=0, zorder=2)
    for _, one in rows.groupby("seed") if rows["seed"].nunique() > 1 else []:
        each = _at_steps(one).agg(x=("x", "mean"), y=("mmd2", "mean"))
        axes.plot(each["x"], each["y"], color=colour, ls=dash, lw=0.5, alpha=0.7, zorder=3)


def _at_steps(rows: pd.DataFrame) -> Any:
    """Rows grouped by step, with x = t over the first t of their own chain."""
    start = rows.groupby(["dataset", "method", "variant", "seed"])["t"].transform("max")
    return rows.assign(x=rows["t"] / start).groupby("step")


def training(curves: Mapping[tuple[str, str, str, int], pd.DataFrame], experiment: Mapping[str, Any]) -> Figure:
    """The loss of every run against the images that it saw, a panel per dataset."""
    datasets = [d for d in experiment["datasets"] if any(k[0] == d for k in curves)]
    if not datasets:
        return empty("Training loss")
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(max(3.4, 2.6 * len(datasets)), 2.6), squeeze=False, layout="constrained"
    )
    panels = dict(zip(datasets, axes[0], strict=True))
    for (dataset, method, variant, _), curve in curves.items():
        colour, dash = style(experiment, method, variant)
        name = label(experiment, method, variant)
        panels[dataset].plot(curve["images"], curve["value"], color=colour, ls=dash, lw=1, label=name)
    for dataset, panel in panels.items():
        panel.set_title(dataset, loc="left")
        panel.set_yscale("log" if all(line.get_ydata().min() > 0 for line in panel.lines) else "linear")
        panel.set_xlabel("images seen")
    axes[0, 0].set_ylabel("training loss")
    legend(figure, axes.flat)
    return figure


def histories(folder: Path, experiment: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str, int], pd.DataFrame]]:
    """(dataset, method, variant, seed) and the loss curve of every finished training whose history can be read."""
    for one in experiment["instances"]:
        made = manifest(folder, f"{one['path']}/train")
        if made is None or "history.parquet" not in made.files:
            continue
        try:
            rows = read(Path(made.folder) / "history.parquet")
        except PipelineError:
            continue
        loss = rows[rows["key"] == "loss"]
        if len(loss):
            yield (one["dataset"], one["method"], one["variant"], one["seed"]), loss


def style(experiment: Mapping[str, Any], method: str, variant: str) -> tuple[str, Any]:
    """Colour and dash of a method's variant: the same in every figure of an experiment."""
    place = list(dict.fromkeys((i["method"], i["variant"]) for i in experiment["instances"])).index((method, variant))
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
