"""Scores against the progress of training: the figure, and each method beside its control at equal costs.

The result of a training is its last weights, whatever stands here: snapshots are looked at, never chosen from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from pipeline_lib.exits import PipelineError
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import EQUAL_COSTS, PROGRESS_INFLUENCES, read, write
from pipeline_lib.reporting import trainings
from pipeline_lib.reporting.collect import joined
from pipeline_lib.reporting.comparisons import Tables, each
from pipeline_lib.reporting.curves import MANY, style
from pipeline_lib.reporting.intervals import paired
from pipeline_lib.reporting.style import GREY, empty, legend, save
from pipeline_lib.reporting.summaries import (
    RUN,
    done_scores,
    frechet,
    label,
    markdown,
    number,
    with_intervals,
)
from pipeline_lib.scores.estimates import Estimate, between, mean

NAME, TABLE = "progress", "equal_costs"
AXES = {"images_seen": "images seen in training", "gpu_seconds": "GPU-seconds of training"}
AT = {"images_seen": "images", "gpu_seconds": "gpu-seconds"}
READING = (
    "Scores of the main average of the weights (that of ema_decay) at snapshots of each training and at its end. Means "
    "over training seeds (thin lines: single seeds; bands: 95 % intervals over samples), all on the same chains. "
    "GPU-seconds: steps times the median time of a step, times devices; on a CPU, seconds of the process. Dotted: what "
    "held-out images get, at the same number of images. The result of a training is its last point, and no other is "
    "ever chosen."
)
NOTE = (
    "Both scores at the budget that both trainings have reached: where the first of the two ended. Between two "
    "snapshots a score is read off the straight line, which lies above a curve that falls ever more slowly. "
    "Difference: to the control, paired by seed, with its 95 % t-interval, and after 'samples' the interval over "
    "samples of these trained networks, paired by image. With a learning rate that decays, the middle of a training is "
    "not the end of a shorter one."
)
NO_CONTROL = "its control keeps no snapshots that are scored in this sampling with the same seeds"
NO_SECONDS = "the seconds of a training are not known"
OTHER_MACHINE = "its control was trained on another machine"
TOO_EARLY = "one of the two ended before the other's first snapshot"
Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One score of one training at its snapshots and its end: rows of PROGRESS in the order of steps."""

    rows: pd.DataFrame
    place: Path

    @cached_property
    def estimates(self) -> list[Estimate]:
        """With the influence of each image. Raises BadData where the record cannot be read, KeyError where it lacks
        one."""
        found = read(self.place / "influences.parquet", PROGRESS_INFLUENCES)
        known = dict(zip(zip(found["step"], found["metric"], strict=True), found["images"], strict=True))
        return [Estimate(row.value, known[row.step, row.metric].astype(float)) for row in each(self.rows)]

    def end(self, axis: str) -> float:
        """Where it ends; NaN where that is not known."""
        return float(self.rows[axis].astype(float).iloc[-1])

    def at(self, axis: str, place: float) -> Estimate | None:
        """The score at a place of an axis, None before the first snapshot."""
        return between(self.rows[axis].astype(float).tolist(), self.estimates, place)

    @property
    def machine(self) -> tuple[str, str]:
        """Device and host of the training."""
        return str(self.rows["device"].iloc[-1]), str(self.rows["host"].iloc[-1])


def curves(folder: Path, tables: Tables) -> dict[tuple[Any, ...], dict[int, Curve]]:
    """(dataset, method, variant, sampler, nfe, metric) -> seed -> its curve, of the Frechet distances."""
    rows = frechet(done_scores(tables["progress"])).sort_values("step", kind="stable")
    found: dict[tuple[Any, ...], dict[int, Curve]] = {}
    for key, of_one in rows.groupby([*RUN, "metric", "seed"], sort=False):
        one = next(each(of_one))
        place = folder.joinpath(one.dataset, one.method, one.variant, f"s{one.seed}", one.sampler, NAME)
        found.setdefault(tuple(key)[:-1], {})[int(one.seed)] = Curve(of_one, place)
    return found


def equal_costs(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of EQUAL_COSTS: every method with a control, at as many images and as many GPU-seconds."""
    return joined([pd.DataFrame(_equal(experiment, curves(folder, tables)))], EQUAL_COSTS)


def _equal(experiment: Mapping[str, Any], found: Mapping[tuple[Any, ...], dict[int, Curve]]) -> Iterator[Row]:
    order = [(i["dataset"], i["method"], i["variant"]) for i in experiment["instances"]]
    for key, mine in sorted(found.items(), key=lambda item: order.index(item[0][:3])):
        dataset, method, variant, *cell = key
        control = experiment["methods"][method]["variants"][variant]["control"]
        if control is None:
            continue
        others = found.get((dataset, *control.split("/"), *cell), {})
        pairs = {seed: (mine[seed], others[seed]) for seed in mine if seed in others}
        for axis in AXES:
            about = {**dict(zip([*RUN, "metric"], key, strict=True)), "control": control, "at": AT[axis]}
            yield about | _compared(pairs, axis)


def _compared(pairs: Mapping[int, tuple[Curve, Curve]], axis: str) -> Row:
    """Means over seeds at the budget that both have reached, or a note that says why there are none."""
    read_off: dict[int, tuple[float, Estimate, Estimate]] = {}
    why = NO_CONTROL
    for seed, (mine, other) in pairs.items():
        both = _at_equal(mine, other, axis)
        if isinstance(both, str):
            why = both
        else:
            read_off[seed] = both
    if not read_off:
        return {"note": why, "seeds": 0}
    budgets, ours, theirs = zip(*read_off.values(), strict=True)
    values, controls = (pd.Series([e.value for e in part], index=list(read_off)) for part in (ours, theirs))
    over_seeds = paired(values, controls)
    try:
        low, high = mean([a - b for a, b in zip(ours, theirs, strict=True)]).interval()
    except ValueError:  # other numbers of images
        low = high = float("nan")
    return {
        "budget": float(np.mean(budgets)),
        "value": float(values.mean()),
        "control_value": float(controls.mean()),
        "difference": over_seeds.mean,
        "low": over_seeds.low,
        "high": over_seeds.high,
        "low_samples": low,
        "high_samples": high,
        "seeds": len(read_off),
        "samples": int(next(iter(pairs.values()))[0].rows["samples"].iloc[-1]),
        "note": "",
    }


def _at_equal(mine: Curve, other: Curve, axis: str) -> tuple[float, Estimate, Estimate] | str:
    """Budget and both scores there, or why there are none."""
    if axis == "gpu_seconds" and mine.machine != other.machine:
        return OTHER_MACHINE
    budget = float(np.minimum(mine.end(axis), other.end(axis)))  # not known where one is not
    if np.isnan(budget):
        return NO_SECONDS
    try:
        ours, theirs = mine.at(axis, budget), other.at(axis, budget)
    except (PipelineError, KeyError):
        return f"{mine.place}/influences.parquet or that of its control cannot be read; delete it and run again"
    return TOO_EARLY if ours is None or theirs is None else (budget, ours, theirs)


def shown(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """The rows for a reader, a line for each method and score, with both budgets beside each other."""
    lines = []
    for _, pair in rows.groupby([*RUN, "metric"], sort=False):
        first = next(each(pair))
        line = {
            "dataset": first.dataset,
            "method": label(experiment, first.method, first.variant),
            "control": first.control,
            "sampler": first.sampler,
            "metric": first.metric,
            "seeds": first.seeds,
        }
        for row in each(pair):
            known = pd.notna(row.value)
            line |= {
                f"equal {row.at}": number(float(f"{row.budget:.4g}")) if known else "",
                f"score there, at equal {row.at}": f"{number(row.value)} (control {number(row.control_value)})"
                if known
                else row.note,
                f"difference at equal {row.at}": with_intervals(
                    row.difference, (row.low, row.high), (row.low_samples, row.high_samples)
                )
                if known
                else "",
            }
        lines.append(line)
    return pd.DataFrame(lines)


def text(folder: Path, tables: Tables) -> str:
    """Every Frechet distance at every snapshot: means over seeds. `folder` is that of the experiment."""
    rows = points(folder, tables)
    note = f"{READING} {trainings.NOTE}" if trainings.COLUMN in rows else READING
    return f"# Scores against training\n\n{note}\n\n{markdown(rows)}"


def points(folder: Path, tables: Tables) -> pd.DataFrame:
    """A row for every point of the curves: means and spreads over seeds."""
    done = frechet(done_scores(tables["progress"]))
    keys = [*RUN, "metric", "step", "images_seen"]
    numbers = done.groupby(keys, sort=False).agg(
        gpu_seconds=("gpu_seconds", "mean"), score=("value", "mean"), sd=("value", "std"), seeds=("seed", "nunique")
    )
    return trainings.beside(numbers.reset_index(), [*RUN, "metric", "step"], spreads(folder, tables))


def spreads(folder: Path, tables: Tables) -> dict[tuple[Any, ...], float]:
    """(dataset, method, variant, sampler, nfe, metric, step) -> the spread between trainings, where there are several;
    NaN where the influences of one cannot be read."""
    found: dict[tuple[Any, ...], float] = {}
    for key, by_seed in curves(folder, tables).items():
        at: dict[int, list[Estimate]] = {}
        try:
            for curve in by_seed.values():
                for step, estimate in zip(curve.rows["step"], curve.estimates, strict=True):
                    at.setdefault(int(step), []).append(estimate)
        except (PipelineError, KeyError):
            continue
        found |= {(*key, step): trainings.spread(estimates) for step, estimates in at.items()}
    return found


def write_table(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `tables/equal_costs.{parquet,csv,md}` where trainings keep snapshots."""
    if not experiment["progress"]:
        return
    rows, target = equal_costs(folder, experiment, tables), folder / "tables" / TABLE
    write(target.with_suffix(".parquet"), rows, EQUAL_COSTS, {"experiment": experiment["experiment"]})
    write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
    write_text(target.with_suffix(".md"), f"# Scores at equal costs\n\n{NOTE}\n\n{markdown(shown(rows, experiment))}")


def draw(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `figures/progress.{svg,png}` where trainings keep snapshots."""
    if experiment["progress"]:
        save(figure(experiment, tables), folder / "figures" / NAME)


def figure(experiment: Mapping[str, Any], tables: Tables) -> Figure:
    """A row for each dataset, sampling and score: against images seen and against GPU-seconds, a line a method."""
    rows = frechet(done_scores(tables["progress"]))
    strips = list(rows.groupby(["dataset", "sampler", "nfe", "metric"], sort=False))
    if not strips:
        return empty("Scores against training")
    figure, axes = plt.subplots(
        len(strips), 2, figsize=(6.4, 2.3 * len(strips) + 0.6), squeeze=False, sharey="row", layout="constrained"
    )
    for ((dataset, sampler, nfe, metric), strip), panels in zip(strips, axes, strict=True):
        for panel, (axis, name) in zip(panels, AXES.items(), strict=True):
            _lines(panel, strip, axis, experiment)
            _floor(panel, tables["scores"], str(dataset), str(metric), strip)
            panel.set_xlabel(name)
            panel.set_xlim(left=0)
        panels[0].set_ylabel(str(metric))
        if strip["value"].min() > 0:
            panels[0].set_yscale("log")
            panels[0].yaxis.set_major_formatter(LogFormatter())  # 10, 100, and 20 or 30 where there is room
            panels[0].yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        panels[0].set_title(f"{dataset}, {sampler}, {nfe} calls", loc="left")
    legend(figure, axes.flat)
    return figure


def _lines(panel: Axes, rows: pd.DataFrame, axis: str, experiment: Mapping[str, Any]) -> None:
    methods = list(rows[rows[axis].notna()].groupby(["method", "variant"], sort=False))
    for (method, variant), line in methods:
        colour, dash = style(experiment, str(method), str(variant))
        points = line.groupby("step").agg(
            x=(axis, "mean"), y=("value", "mean"), low=("low", "mean"), high=("high", "mean")
        )
        name = label(experiment, str(method), str(variant))
        panel.plot(points["x"], points["y"], color=colour, ls=dash, marker=".", ms=4, label=name, zorder=3)
        if len(methods) > MANY:
            continue
        low = points["low"].clip(lower=points["y"] / 10)  # a log axis has no zero
        panel.fill_between(points["x"], low, points["high"], color=colour, alpha=0.15, lw=0, zorder=2)
        for _, one in line.groupby("seed") if line["seed"].nunique() > 1 else []:
            panel.plot(one[axis], one["value"], color=colour, ls=dash, lw=0.5, alpha=0.7, zorder=3)


def _floor(panel: Axes, scores: pd.DataFrame, dataset: str, metric: str, rows: pd.DataFrame) -> None:
    """The floor where it was scored on as many images; the distance depends on their number."""
    same = scores["metric"].eq(metric) & scores["dataset"].eq(dataset) & scores["control"].eq("floor")
    floor = scores[same & scores["samples"].isin(rows["samples"].unique())]["value"]
    if len(floor):
        panel.axhline(float(floor.iloc[0]), ls=":", lw=1, color=GREY, label="held-out images", zorder=1)
