"""Scores against a setting, as a figure and a table: lines over one key (Li and van der Schaar, 2024, Fig. 4), or a
heat map over two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.records.tables import SWEEP
from pipeline_lib.reporting.collect import collect, joined
from pipeline_lib.reporting.comparisons import READING, Section, Tables, compare, each, section
from pipeline_lib.reporting.intervals import half_widths
from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, empty, legend, save
from pipeline_lib.reporting.summaries import control_value, number, of_main_sampling

LINES = (
    "Above: scores, means over seeds with their standard deviation. Grey: the control, with a band of the same; "
    "dotted: what held-out images get. Below them: the difference to the control, paired by seed, with its 95 % "
    "t-interval; a bar that holds 0 shows no difference. Right: time of a training step with its standard deviation "
    "over seeds, hollow points and dots its CPU time; and the most memory, on a CPU that of the whole process."
)
HEAT_MAP = (
    "Mean score over seeds, darker is worse; below it the difference to the control, paired by seed, with the "
    "half-width of its 95 % interval."
)
WIDE = 30.0  # ratio of the largest to the smallest x from which the axis is logarithmic


def sections(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> list[Section]:
    """Every sweep of the experiment, from its collected `tables`."""
    found = []
    for name, one in experiment["sweeps"].items():
        rows = measure(folder, experiment, tables, one)
        axes = {name_of(one[axis]): axis for axis in ("x", "y") if one[axis]}
        caption = HEAT_MAP if one["y"] else LINES
        found.append(section(name, one, rows, experiment, tables, [READING], axes, caption))
    return found


def name_of(key: str) -> str:
    """The last part of a dotted key in words."""
    return key.rpartition(".")[2].replace("_", " ")


def measure(folder: Path, experiment: Mapping[str, Any], tables: Tables, sweep: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of `SWEEP`: those of a comparison, with their place in the sweep, and in its order within each cell."""
    rows = compare(folder, experiment, tables, sweep["rows"])
    points = pd.DataFrame(sweep["points"], columns=["dataset", "method", "variant", "line", "x", "y"])
    placed = rows.merge(points, on=["dataset", "method", "variant"], how="left")
    cell = placed.groupby(["dataset", "sampler", "nfe", "metric"], sort=False).ngroup()
    return joined([placed.assign(cell=cell).sort_values(["cell", "x", "y"], kind="stable").drop(columns="cell")], SWEEP)


def draw(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Write `figures/<name>.{svg,png}` of every sweep below `folder`."""
    tables = collect(folder, experiment) if experiment["sweeps"] else {}
    for name, sweep in experiment["sweeps"].items():
        rows = _drawn(measure(folder, experiment, tables, sweep), experiment)
        controls = [c.split("/") for c in rows["control"].unique() if c]
        references = compare(folder, experiment, tables, controls)
        if rows["mean"].notna().any():
            figure = (heat_map if sweep["y"] else lines)(rows, references, tables["scores"], sweep)
        else:
            figure = empty(sweep["title"])
        save(figure, folder / "figures" / name)


def _drawn(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the first sampling of each method and of one metric: FID where it is known, else the first."""
    scored = rows.loc[rows["mean"].notna(), "metric"]
    metric = "FID" if "FID" in set(scored) else next(iter(scored), "")
    return of_main_sampling(rows[rows["metric"].eq(metric)], experiment)


def lines(rows: pd.DataFrame, references: pd.DataFrame, scores: pd.DataFrame, sweep: Mapping[str, Any]) -> Figure:
    """Two rows of panels per dataset: at each number of network calls the score and below it the paired difference to
    the control, then the time of a training step and below it its memory."""
    datasets, calls = list(rows["dataset"].unique()), sorted(rows["nfe"].unique(), reverse=True)
    size = (max(4.4, 2.35 * (len(calls) + 1)), 3.7 * len(datasets) + 0.75)
    figure, axes = plt.subplots(2 * len(datasets), len(calls) + 1, figsize=size, squeeze=False, layout="constrained")
    for dataset, above, below in zip(datasets, axes[::2], axes[1::2], strict=True):
        here, control = (r[r["dataset"].eq(dataset)] for r in (rows, references))
        for nfe, panel, difference in zip(calls, above, below, strict=False):
            cell, floor = (
                here[here["nfe"].eq(nfe)],
                control_value(scores, dataset, str(here["metric"].iloc[0]), "floor"),
            )
            _score_panel(panel, cell, _same_cells(control, here, nfe), floor)
            panel.set_title(f"{nfe} calls", loc="left")
            _difference_panel(difference, cell)
        above[0].set_ylabel(f"{dataset}\n{rows['metric'].iloc[0]}")
        below[0].set_ylabel("difference to the control")
        cell, references_here = here[here["nfe"].eq(calls[0])], _same_cells(control, here, calls[0])
        _time_panel(above[-1], cell, references_here)
        _memory_panel(below[-1], cell, references_here)
        for panel in (*above, *below):
            _x_axis(panel, rows["x"], name_of(sweep["x"]))
    legend(figure, axes.flat)
    return figure


def _same_cells(control: pd.DataFrame, rows: pd.DataFrame, nfe: int) -> pd.DataFrame:
    first = rows.iloc[0]
    same = control["nfe"].eq(nfe) & control["sampler"].eq(first["sampler"]) & control["metric"].eq(first["metric"])
    return control[same]


def _score_panel(axes: Axes, rows: pd.DataFrame, controls: pd.DataFrame, floor: float) -> None:
    for place, one in enumerate(each(controls[controls["mean"].notna()])):
        look: dict[str, Any] = {"color": GREY, "ls": DASHES[place % len(DASHES)], "lw": 1.0}
        axes.axhline(one.mean, label=f"control: {one.label}", zorder=1, **look)
        if pd.notna(one.sd):
            axes.axhspan(one.mean - one.sd, one.mean + one.sd, color="#d9d9d9", alpha=0.6, lw=0, zorder=0)
    for place, (_, line) in enumerate(rows.groupby("line", sort=False)):
        points = line[line["mean"].notna()].sort_values("x")
        bars = points["sd"].fillna(0).to_numpy(float)
        axes.errorbar(
            points["x"], points["mean"], bars, label=line_name(line), marker="o", ms=3, capsize=2, **_look(place)
        )
    if pd.notna(floor):
        axes.axhline(floor, ls=":", lw=1, color="black", label="floor: held-out images", zorder=1)
    if lost := int(rows["mean"].isna().sum()):
        text = f"{lost} of {len(rows)} points without a score"
        axes.text(0.98, 0.97, text, transform=axes.transAxes, fontsize=6.5, color=GREY, ha="right", va="top")


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place // len(COLOURS) % len(DASHES)]}


def _subtitle(axes: Axes, text: str) -> None:
    """A small line between title and panel, which may be wider than the panel."""
    line = axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=6.5, color=GREY, va="bottom")
    line.set_in_layout(False)


def line_name(rows: pd.DataFrame) -> str:
    """Name of a line in the legend: the method's label, with the name of its grid where there are several."""
    family = str(rows["line"].iloc[0]).partition("/")[2]
    base = str(rows["label"].iloc[0]).removesuffix(f" ({rows['variant'].iloc[0]})")
    return f"{base} ({family})" if family else base


def width_note(rows: pd.DataFrame) -> str:
    """The half-widths of the paired intervals, or why there are none."""
    if said := half_widths(rows):
        return f"half-width {said}"
    return "no control" if rows["control"].eq("").all() else "too few paired seeds for an interval"


def _difference_panel(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=GREY, lw=1.0, zorder=1)
    for place, (_, line) in enumerate(rows.groupby("line", sort=False)):
        points = line[line["difference"].notna()].sort_values("x")
        bars = points["half_width"].fillna(0).to_numpy(float)
        axes.errorbar(points["x"], points["difference"], bars, marker="o", ms=3, capsize=2, **_look(place))
    _subtitle(axes, width_note(rows))


def _time_panel(axes: Axes, rows: pd.DataFrame, controls: pd.DataFrame) -> None:
    _cost_lines(axes, rows, controls, "step_seconds", 1000)
    _cost_lines(axes, rows, controls, "step_cpu_seconds", 1000, hollow=True)
    axes.set_title("training step", loc="left")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)


def _memory_panel(axes: Axes, rows: pd.DataFrame, controls: pd.DataFrame) -> None:
    _cost_lines(axes, rows, controls, "peak_memory_mb")
    axes.set_title("memory", loc="left")
    axes.set_ylabel("MB")
    axes.set_ylim(bottom=0)


def _cost_lines(
    axes: Axes, rows: pd.DataFrame, controls: pd.DataFrame, column: str, unit: float = 1, hollow: bool = False
) -> None:
    """A cost with its spread over seeds, where the column has one; hollow: points without a line."""
    for place, value in enumerate(controls[column].dropna()):
        axes.axhline(unit * value, color=GREY, ls=":" if hollow else DASHES[place % len(DASHES)], lw=1.0, zorder=1)
    for place, (_, line) in enumerate(rows.groupby("line", sort=False)):
        points = line[line[column].notna()].sort_values("x")
        look: dict[str, Any] = {**_look(place), **({"mfc": "white", "ls": "none"} if hollow else {})}
        bars = unit * points[f"{column}_sd"].fillna(0) if f"{column}_sd" in points else None
        axes.errorbar(points["x"], unit * points[column], bars, marker="o", ms=3, capsize=2, clip_on=False, **look)


def _x_axis(axes: Axes, values: "pd.Series[float]", name: str) -> None:
    ticks = sorted(values.unique())
    if ticks[0] > 0 and ticks[-1] / ticks[0] >= WIDE:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks, [number(float(t)) for t in ticks])
    axes.set_xlabel(name)


def heat_map(rows: pd.DataFrame, references: pd.DataFrame, scores: pd.DataFrame, sweep: Mapping[str, Any]) -> Figure:
    """A panel per dataset and number of calls: the mean score as colour, the difference to the control as text."""
    datasets, calls = list(rows["dataset"].unique()), sorted(rows["nfe"].unique(), reverse=True)
    across, down = (sorted(rows[axis].unique()) for axis in ("x", "y"))
    size = (len(calls) * max(3.2, 1.4 + 0.85 * len(across)), len(datasets) * (1.0 + 0.45 * len(down)))
    figure, axes = plt.subplots(len(datasets), len(calls), figsize=size, squeeze=False, layout="constrained")
    for dataset, panels in zip(datasets, axes, strict=True):
        for nfe, panel in zip(calls, panels, strict=True):
            here = rows[rows["dataset"].eq(dataset) & rows["nfe"].eq(nfe)]
            shade = _cells(panel, here, across, down)
            panel.set_title(f"{dataset}, {nfe} calls", loc="left", pad=14)
            floor = control_value(scores, dataset, str(rows["metric"].iloc[0]), "floor")
            control = _same_cells(references[references["dataset"].eq(dataset)], here, nfe)
            _subtitle(panel, "; ".join(filter(None, (_levels(control, floor), width_note(here)))))
            panel.set_xlabel(name_of(sweep["x"]))
            panel.set_ylabel(name_of(sweep["y"]))
            figure.colorbar(shade, ax=panel, label=rows["metric"].iloc[0], shrink=0.9)
    return figure


def _levels(control: pd.DataFrame, floor: float) -> str:
    known = [f"{r.label} {r.mean:.3g}" for r in each(control) if pd.notna(r.mean)]
    return "; ".join([*known, *([f"floor {floor:.3g}"] if pd.notna(floor) else [])])


def _cells(axes: Axes, rows: pd.DataFrame, across: list[float], down: list[float]) -> Any:
    """One cell a run; what has no score, or no run, is grey and says so."""
    values = np.full((len(down), len(across)), np.nan)
    texts = dict.fromkeys(np.ndindex(*values.shape), "not run")
    for one in each(rows):
        place = (down.index(one.y), across.index(one.x))
        values[place] = one.mean
        texts[place] = _cell_text(one)
    axes.set_facecolor("#e6e6e6")
    low, high = _colour_range(rows)
    masked = np.ma.masked_invalid(values)
    shade: Any = axes.imshow(masked, vmin=low, vmax=high, cmap="viridis_r", origin="lower", aspect="auto")
    for (i, j), text in texts.items():
        dark = not np.isnan(values[i, j]) and shade.norm(values[i, j]) > 0.55
        axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    axes.set_xticks(range(len(across)), [number(float(v)) for v in across])
    axes.set_yticks(range(len(down)), [number(float(v)) for v in down])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return shade


def _colour_range(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of the colour scale: at least two half-widths apart, so that chance looks even."""
    low, high = float(rows["mean"].min()), float(rows["mean"].max())
    chance = float(rows["half_width"].median())
    widen = 0.0 if np.isnan(chance) else max(0.0, chance - (high - low) / 2)
    return low - widen, high + widen


def _cell_text(one: Any) -> str:
    if pd.isna(one.mean):
        return "no score"
    difference = "" if pd.isna(one.difference) else f"\n{one.difference:+.2g}"
    half = "" if pd.isna(one.half_width) else f" ± {one.half_width:.2g}"
    return f"{one.mean:.3g}{difference}{half}"
