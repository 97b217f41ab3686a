"""Figures of the anatomy of exposure bias: a page for each trained method, and one for each dataset that compares them.

A page shows the first seed that is measured, a colour for each sampling and number of calls. A comparison shows means
over seeds of the first sampling of each method, with fewest and with most calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.config.sampled import pictured
from pipeline_lib.reporting.curves import style
from pipeline_lib.reporting.style import COLOURS, GREY, empty, legend, save
from pipeline_lib.reporting.summaries import RUN, label, of_main_sampling

PREFIX = "anatomy-"
COLUMNS, CELLS = 3, 6  # panels in a row; samplings and numbers of calls on one page
WHOLE, DASHED = "-", (0, (3, 1.4))


@dataclass(frozen=True)
class Panel:
    """One panel: readings of a measure and how they are drawn, over t or over where chains start from a true x_t.

    Over `t` and with a `start`, only chains from there; over `t` with `every` start, of one cell, a line for each.
    """

    measure: str
    title: str
    readings: Mapping[str, Any]
    hint: str = ""
    over: Literal["t", "start", "every"] = "t"
    start: float | None = None
    level: float | None = None
    log: bool = False


RATIO = Panel("eps-norm", "norm of ε, sampling / training", {"ratio": WHOLE}, level=1)
STEP = Panel("delta", "spread of x_t, one step: √δ, signed", {"gap-step": WHOLE}, level=0)
CHAIN = Panel("delta", "spread of x_t, a chain: √δ, signed", {"gap-chain": WHOLE}, start=1.0, level=0)
BOTH = {"sampling": WHOLE, "training": DASHED}
SAID = "solid: sampling, dashed: training"
MODULAR = Panel(
    *("modular-error", "KL of a step, nats a pixel", {"training": WHOLE, "after-step": DASHED}),
    hint="dashed: after one sampled step",
    log=True,
)
LEAK = Panel("leak", "leak test: MMD² of x_0", {"mmd2": WHOLE}, over="start", level=0)
GAIN = Panel("gain", "what x_0 keeps of a perturbation", {"gain": WHOLE}, over="start", level=1)
COMPARED = (RATIO, STEP, CHAIN, MODULAR, LEAK, GAIN)
PAGE = (
    Panel("eps-norm", "norm of ε", BOTH, SAID),
    RATIO,
    Panel("variance", "variance of x_t, sampling / training", {"ratio": WHOLE}, level=1),
    Panel("mean-bias", "squared bias of the mean ε", {f"eps-{k}": v for k, v in BOTH.items()}, SAID, level=0),
    Panel("mean-bias", "squared bias of the mean x_0", {f"x0-{k}": v for k, v in BOTH.items()}, SAID, log=True),
    MODULAR,
    STEP,
    CHAIN,
    Panel("delta", "the same after a leak", {"gap-chain": WHOLE}, over="every", level=0),
    Panel("eps-norm", "norm of ε, ratio after a leak", {"ratio": WHOLE}, over="every", level=1),
    LEAK,
    GAIN,
    Panel(
        "normality", "pixels whose error is not normal", {"rejected": WHOLE}, "dotted: if all are normal", level=0.05
    ),
    Panel("norm-correlation", "spread of ln |x_t|", {f"spread-{k}": v for k, v in BOTH.items()}, SAID),
    Panel("shifted-time", "time shift: chosen less planned t", {"start": WHOLE, "end": DASHED}, "dashed: end of step"),
)


Points = list[tuple[float, float, float, float]]  # x, value, low, high


@dataclass(frozen=True)
class Line:
    """One curve of every panel."""

    name: str
    rows: pd.DataFrame
    colour: str
    dash: Any = WHOLE

    @cached_property
    def curves(self) -> dict[tuple[str, str], dict[float | None, Points]]:
        """(measure, reading) -> start of the chains, None where there is none -> means over seeds."""
        known = self.rows[self.rows["step"].notna() & self.rows["value"].notna()]
        known = known.assign(x=known["t"] / self.rows["t"].max())
        means = known.groupby(["measure", "reading", "start", "x"], dropna=False)[["value", "low", "high"]].mean()
        found: dict[tuple[str, str], dict[float | None, Points]] = {}
        for (measure, reading, start, x), *values in means.itertuples(name=None):
            of = found.setdefault((measure, reading), {})
            of.setdefault(None if pd.isna(start) else float(start), []).append((x, *values))
        return found


def measured(experiment: Mapping[str, Any]) -> bool:
    """Whether the experiment has an anatomy."""
    return bool(experiment["instances"] and experiment["anatomy"]["measures"])


def drawings(experiment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, title) of all figures in order, the comparisons first; pages of runs without rows are not drawn."""
    if not measured(experiment):
        return []
    who = dict.fromkeys((i["dataset"], i["method"], i["variant"]) for i in experiment["instances"])
    pages = [
        (f"{PREFIX}{dataset}-{method}-{variant}{suffix}", f"{label(experiment, method, variant)} on {dataset}")
        for dataset, method, variant in who
        for suffix in _suffixes(experiment, method)
    ]
    return [(f"{PREFIX}{d}", f"Methods on {d}") for d in experiment["datasets"]] + pages


def draw(folder: Path, experiment: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """Write `figures/anatomy-*`: for each dataset the comparison, and a page for each run that has rows."""
    for old in (folder / "figures").glob(f"{PREFIX}*"):  # of runs that are no more
        old.unlink()
    if not measured(experiment):
        return
    for dataset in experiment["datasets"]:
        figure = comparison(rows[rows["dataset"].eq(dataset)], experiment)
        save(figure, folder / "figures" / f"{PREFIX}{dataset}")
    for key, run in rows.groupby(["dataset", "method", "variant"], sort=False):
        lines = cells(run, experiment)
        for suffix, few in zip(_suffixes(experiment, str(key[1])), _cut(lines), strict=False):
            save(page(few), folder / "figures" / f"{PREFIX}{'-'.join(map(str, key))}{suffix}", png=False)


def cells(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> list[Line]:
    """The first measured seed of one run: a line for each sampling and number of calls."""
    first = rows[rows["seed"].eq(rows["seed"].min())]
    order = pictured(experiment, str(first["method"].iloc[0]))
    first = first[first["sampler"].isin(order)]
    keys = sorted({(str(s), int(n)) for s, n in zip(first["sampler"], first["nfe"], strict=True)})
    keys.sort(key=lambda key: order.index(key[0]))
    return [
        Line(f"{s}, {n} calls", first[first["sampler"].eq(s) & first["nfe"].eq(n)], COLOURS[i % CELLS])
        for i, (s, n) in enumerate(keys)
    ]


def page(lines: Sequence[Line]) -> Figure:
    """All panels that have something to show."""
    return _panels([(panel, lines) for panel in PAGE])


def comparison(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """Methods beside each other: the panels of `COMPARED`, with fewest and with most calls of each."""
    rows = of_main_sampling(rows, experiment)
    if rows.empty:
        return empty("Anatomy of the error")
    calls = sorted({int(rows["nfe"].min()), int(rows["nfe"].max())})
    shown = []
    for nfe in calls:
        of_calls = rows[rows["nfe"].eq(nfe)]
        lines = [
            Line(label(experiment, str(m), str(v)), one, *style(experiment, str(m), str(v)))
            for (m, v), one in of_calls.groupby(["method", "variant"], sort=False)
        ]
        shown += [(panel, lines, f"{nfe} calls") for panel in COMPARED]
    return _panels([(panel, lines) for panel, lines, _ in shown], [said for *_, said in shown])


def _panels(shown: Sequence[tuple[Panel, Sequence[Line]]], said: Sequence[str] = ()) -> Figure:
    said = said or [""] * len(shown)
    kept = [(p, ls, words) for (p, ls), words in zip(shown, said, strict=True) if any(any(_curves(p, x)) for x in ls)]
    if not kept:
        return empty("Anatomy of the error")
    columns = min(COLUMNS, len(kept))
    height = -(-len(kept) // columns)
    size = (max(3.4, 2.35 * columns), 1.75 * height + 0.5)
    with mpl.rc_context({"axes.formatter.limits": (-4, 5)}):  # no power of ten above a panel, where the hint stands
        figure, axes = plt.subplots(height, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(kept) :]:
        axis.set_axis_off()
    for axis, (panel, lines, words) in zip(axes.flat, kept, strict=False):
        _panel(axis, panel, lines, words)
    legend(figure, axes.flat)
    return figure


def _panel(axes: Axes, panel: Panel, lines: Sequence[Line], words: str) -> None:
    for place, line in enumerate(lines[:1] if panel.over == "every" else lines):
        _draw(axes, panel, line, width=1.2 if place else 2.4)  # what the others may cover is seen beside them
    if panel.log:
        axes.set_yscale("log", nonpositive="mask")  # an unbiased square that chance has taken below 0 is left out
    if panel.level is not None:
        axes.axhline(panel.level, ls=":", lw=1, color=GREY, zorder=1)
    axes.set_title(panel.title, loc="left", fontsize=7.5, pad=11)
    hint = "; ".join(filter(None, (words, lines[0].name if panel.over == "every" else panel.hint)))
    axes.annotate(hint, (0, 1.03), xycoords="axes fraction", fontsize=6, color=GREY, va="bottom")
    axes.tick_params(labelsize=6.5)
    if panel.over == "start":
        axes.set_xlim(1.04, 0)
        axes.set_xlabel("start of the chain, share of T", fontsize=7)
    else:
        axes.set_xlim(1.02, -0.02)
        axes.set_xlabel("t / first t", fontsize=7)


def _draw(axes: Axes, panel: Panel, line: Line, width: float) -> None:
    handles: dict[str, Any] = {}
    for reading, start, points in _curves(panel, line):
        x, value, low, high = zip(*points, strict=True)
        dots: Any = {"marker": "o", "ms": 2} if panel.over != "t" or len(points) == 1 else {}  # one point has no line
        if start is not None:
            colour = mpl.colormaps["viridis"](0.9 * start)
            handles |= {f"from {start:g}": axes.plot(x, value, color=colour, lw=1, **dots)[0]}
            continue
        several = len(panel.readings) > 1  # then the dash says which
        dash = panel.readings[reading] if several else line.dash
        first = reading == next(iter(panel.readings))
        look: Any = {"color": line.colour, "ls": dash, "lw": width, **dots}
        axes.plot(x, value, label=line.name if first else None, zorder=3, **look)
        if not panel.log:
            axes.fill_between(x, low, high, color=line.colour, alpha=0.15, lw=0)
    if handles:
        axes.legend(handles.values(), handles.keys(), fontsize=5.5, loc="upper left", handlelength=1, labelspacing=0.2)


def _curves(panel: Panel, line: Line) -> Iterator[tuple[str, float | None, Points]]:
    """Reading, start and points of each curve of a panel, by their place on its axis."""
    for reading in panel.readings:
        of = line.curves.get((panel.measure, reading), {})
        starts = sorted((start for start in of if start is not None), reverse=True)
        if panel.over == "every":
            yield from ((reading, start, of[start]) for start in starts)
        elif panel.over == "start":
            ends = [(start, *of[start][0][1:]) for start in reversed(starts) if of[start][0][0] == 0]
            yield from [(reading, None, ends)] if ends else []
        else:
            whole = starts[0] if panel.measure == "shifted-time" and starts else panel.start
            yield from [(reading, None, of[whole])] if whole in of else []


def _suffixes(experiment: Mapping[str, Any], method: str) -> list[str]:
    """Of the pages of a run: none, -2, -3, as many as its samplings and numbers of calls fill."""
    count = sum(len(experiment["samplings"][s]["nfe"]) for s in pictured(experiment, method))
    return ["" if i == 0 else f"-{i + 1}" for i in range(-(-count // CELLS))]


def _cut(lines: Sequence[Line]) -> list[Sequence[Line]]:
    return [lines[i : i + CELLS] for i in range(0, len(lines), CELLS)]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a run, sampling, reading and start, over seeds: the value at the last step, and the largest in size."""
    keys = [*RUN, "measure", "reading", "start"]
    ordered = rows.sort_values("step", kind="stable", na_position="last")
    runs = ordered.assign(largest=ordered["value"].abs()).groupby([*keys, "seed"], sort=False, dropna=False)
    found = runs.agg(last=("value", "last"), largest=("largest", "max")).reset_index()
    groups = found.groupby(keys, sort=False, dropna=False)
    return groups.agg(seeds=("seed", "nunique"), last=("last", "mean"), largest=("largest", "mean")).reset_index()
