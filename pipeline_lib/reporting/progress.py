"""Scores against the progress of training: the figure, and each method beside its control at equal costs.

The result of a training is its last weights, whatever stands here: snapshots are looked at, never chosen from.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter

from pipeline_lib.exits import PipelineError
from pipeline_lib.records.costs import OTHERS, crowded, mixed, named
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
    device_seconds,
    done_scores,
    frechet,
    label,
    markdown,
    number,
    with_intervals,
)
from pipeline_lib.scores.estimates import Estimate, around, between, mean

NAME, TABLE = "progress", "equal_costs"
AT = {"images_seen": "images", "gpu_seconds": "gpu-seconds"}
READING = (
    "Scores of the main average of the weights (that of ema_decay) at snapshots of each training and at its end. Means "
    "over training seeds (thin lines: single seeds; bands: 95 % intervals over samples), all on the same chains. "
    "Seconds: steps times the median time of a step, times processes, on the device that is named. A training that "
    "starts from another's weights counts that one's images and seconds as its own. Dotted: what held-out images get, "
    "at the same number of images. The result of a training is its last point, and no other is ever chosen."
)
LEAD = (
    "Both scores at the budget that both trainings have reached: where the first of the two ended, what it started "
    "from included."
)
HOW = (
    "Between two snapshots a score is read off the straight line, which lies above a curve that falls "
    "ever more slowly. Difference: to the control, paired by seed, with its 95 % t-interval, and after 'samples' the "
    "interval over samples of these trained networks, paired by image. Neither knows of the reading off: 'at the "
    "snapshots around' has the least and the greatest difference with the scores of the snapshots before and behind "
    "in place of what was read off, between which it lies where the score only falls, or rises, from one to the other; "
    "empty where nothing had to be read off. Seconds are compared on one model of GPU, or on the CPU of one host. "
    "With a learning rate that decays, the middle of a training is not the end of a shorter one."
)
NOTE = f"{LEAD} {HOW}"
NO_CONTROL = "its control keeps no snapshots that are scored in this sampling with the same seeds"
NO_SCORES = "its own snapshots are not scored in this sampling"
UNKNOWN = "what one of the two trainings took, or what it started from, is not known"
OTHER_DEVICE = "seconds of different devices do not compare"
OTHER_HOST = "seconds on CPUs of different hosts do not compare"
TOO_EARLY = "one of the two, with what it started from, ended before the other's first snapshot"
WHO = ["dataset", "method", "variant", "seed"]
FEW = 4  # strips from which on each has a legend of its own beside it: one for all would be far below
Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One score of one training at its snapshots and its end: rows of `charged` in the order of steps."""

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

    def at(self, axis: str, place: float) -> tuple[Estimate, float, float] | None:
        """The score at a place of an axis, with the lower and the higher one of the snapshots before and behind it.

        None before the first snapshot.
        """
        places = self.rows[axis].astype(float).tolist()
        found, ends = between(places, self.estimates, place), around(places, place)
        if found is None or ends is None:
            return None
        low, high = sorted(self.estimates[i].value for i in ends)
        return found, low, high

    def last(self, column: str) -> str:
        """What the last row says: `device`, `host`, or the `start` of the training."""
        return str(self.rows[column].iloc[-1])


@dataclass(frozen=True)
class Reading:
    """Both scores at a budget, and the least and greatest difference that the snapshots around it leave."""

    budget: float
    ours: Estimate
    theirs: Estimate
    least: float
    greatest: float


def charged(experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of PROGRESS with a Frechet distance, where images, seconds, devices and hosts are also those of the training
    that one starts from, however far back. `start`: 'method/variant' of that one.
    """
    rows = frechet(done_scores(tables["progress"])).assign(start="").astype({"images_seen": float})
    trained = tables["costs"][tables["costs"]["stage"].eq("train")].set_index(WHO)
    by_path = {one["path"]: one for one in experiment["instances"]}
    for one in experiment["instances"]:
        before, mine = list(_before(one, by_path)), rows[WHO].eq([one[name] for name in WHO]).all(axis=1)
        if not before or not mine.any():
            continue
        found = trained.reindex([tuple(b[name] for name in WHO) for b in before])  # NaN where it is not known
        for column, cost in (("images_seen", "images"), ("gpu_seconds", "gpu_seconds")):
            rows.loc[mine, column] += found[cost].astype(float).sum(skipna=False)
        for column in ("device", "host"):
            others = found[column].fillna("").tolist()
            rows.loc[mine, column] = [named([*others, own]) for own in rows.loc[mine, column].fillna("")]
        rows.loc[mine, "start"] = f"{before[0]['method']}/{before[0]['variant']}"
    return rows


def _before(one: Mapping[str, Any], by_path: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """What a training started from, what that one started from, and so on."""
    while one["init"]:
        one = by_path[one["init"]]
        yield one


def curves(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> dict[tuple[Any, ...], dict[int, Curve]]:
    """(dataset, method, variant, sampler, nfe, metric) -> seed -> its curve, of the Frechet distances."""
    rows = charged(experiment, tables).sort_values("step", kind="stable")
    found: dict[tuple[Any, ...], dict[int, Curve]] = {}
    for key, of_one in rows.groupby([*RUN, "metric", "seed"], sort=False):
        one = next(each(of_one))
        place = folder.joinpath(one.dataset, one.method, one.variant, f"s{one.seed}", one.sampler, NAME)
        found.setdefault(tuple(key)[:-1], {})[int(one.seed)] = Curve(of_one, place)
    return found


def equal_costs(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of EQUAL_COSTS: every method with a control, at as many images and as many GPU-seconds."""
    return joined([pd.DataFrame(_equal(experiment, curves(folder, experiment, tables)))], EQUAL_COSTS)


def _equal(experiment: Mapping[str, Any], found: Mapping[tuple[Any, ...], dict[int, Curve]]) -> Iterator[Row]:
    order = [(i["dataset"], i["method"], i["variant"]) for i in experiment["instances"]]
    for key, mine in sorted(found.items(), key=lambda item: order.index(item[0][:3])):
        dataset, method, variant, *cell = key
        control = experiment["methods"][method]["variants"][variant]["control"]
        if control is None:
            continue
        others = found.get((dataset, *control.split("/"), *cell), {})
        pairs = {seed: (mine.get(seed), others.get(seed)) for seed in sorted({*mine, *others})}
        for axis in AT:
            about = {**dict(zip([*RUN, "metric"], key, strict=True)), "control": control, "at": AT[axis]}
            yield about | _compared(pairs, axis)


def _compared(pairs: Mapping[int, tuple[Curve | None, Curve | None]], axis: str) -> Row:
    """Means over the seeds that can be compared at the budget that both have reached, and why others cannot."""
    read_off: dict[int, Reading] = {}
    lost: dict[str, list[str]] = {}
    for seed, (mine, other) in pairs.items():
        both = _at_equal(mine, other, axis)
        if isinstance(both, str):
            lost.setdefault(both, []).append(str(seed))
        else:
            read_off[seed] = both
    note = "; ".join([*_lost(lost, len(pairs)), *_starts(pairs.values())])
    if not read_off:
        return {"note": note, "seeds": 0}
    every = read_off.values()
    values = pd.Series({seed: one.ours.value for seed, one in read_off.items()})
    controls = pd.Series({seed: one.theirs.value for seed, one in read_off.items()})
    over_seeds = paired(values, controls)
    try:
        low, high = mean([one.ours - one.theirs for one in every]).interval()
    except ValueError:  # other numbers of images
        low = high = float("nan")
    return {
        "budget": float(np.mean([one.budget for one in every])),
        "value": float(values.mean()),
        "control_value": float(controls.mean()),
        "difference": over_seeds.mean,
        "low": over_seeds.low,
        "high": over_seeds.high,
        "low_samples": low,
        "high_samples": high,
        "low_snapshots": float(np.mean([one.least for one in every])),
        "high_snapshots": float(np.mean([one.greatest for one in every])),
        "seeds": len(read_off),
        "samples": int(next(mine for mine, _ in pairs.values() if mine).rows["samples"].iloc[-1]),
        "note": note,
    }


def _lost(seeds: Mapping[str, list[str]], of: int) -> Iterator[str]:
    """Why seeds are left out; which, unless all are for one reason."""
    for why, whose in seeds.items():
        yield why if len(whose) == of else f"without seed {', '.join(whose)}: {why}"


def _starts(pairs: Iterable[tuple[Curve | None, Curve | None]]) -> Iterator[str]:
    """What is counted beside the own steps of the two trainings."""
    own, other = (next((one.last("start") for one in side if one), "") for side in zip(*pairs, strict=True))
    if own and own == other:
        yield f"both count {own}, which they start from"
        return
    for start, whose in ((own, ""), (other, "the control ")):
        if start:
            yield f"{whose}counts {start}, which it starts from"


def _at_equal(mine: Curve | None, other: Curve | None, axis: str) -> Reading | str:
    """What is compared, or why nothing is."""
    if mine is None or other is None:
        return NO_SCORES if mine is None else NO_CONTROL
    budget = float(np.minimum(mine.end(axis), other.end(axis)))  # not known where one is not
    if np.isnan(budget):
        return UNKNOWN
    if axis == "gpu_seconds" and (why := _apart(mine, other)):
        return why
    try:
        ours, theirs = mine.at(axis, budget), other.at(axis, budget)
    except (PipelineError, KeyError):
        lost = f"{mine.place}/influences.parquet or that of its control cannot be read"
        return f"{lost}; delete progress.parquet beside it and run again"
    if ours is None or theirs is None:
        return TOO_EARLY
    (value, low, high), (control, control_low, control_high) = ours, theirs
    return Reading(budget, value, control, low - control_high, high - control_low)


def _apart(mine: Curve, other: Curve) -> str:
    """Why seconds of the two do not compare: not one model of GPU, or CPUs not of one host; empty where they do."""
    devices = dict.fromkeys((mine.last("device"), other.last("device")))
    if any(map(crowded, devices)):
        return OTHERS
    if len(devices) > 1 or any(map(mixed, devices)):
        return f"{OTHER_DEVICE} ({' against '.join(devices)})"
    hosts = {mine.last("host"), other.last("host")}
    return OTHER_HOST if "cpu" in devices and (len(hosts) > 1 or any(map(mixed, hosts))) else ""


def shown(rows: pd.DataFrame, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """The rows for a reader, with their intervals in one cell."""
    seconds = device_seconds(tables["progress"]["device"])
    return pd.DataFrame([_line(row, experiment, seconds) for row in each(rows)])


def _line(row: Any, experiment: Mapping[str, Any], seconds: str) -> Row:
    known, control = pd.notna(row.value), row.control.partition("/")
    return {
        "dataset": row.dataset,
        "method": label(experiment, row.method, row.variant),
        "control": label(experiment, control[0], control[2]),
        "sampler": row.sampler,
        "metric": row.metric,
        "at equal": seconds if row.at == AT["gpu_seconds"] else row.at,
        "budget": number(float(f"{row.budget:.4g}")) if known else "",
        "score there": f"{number(row.value)} (control {number(row.control_value)})" if known else "",
        "difference": with_intervals(row.difference, (row.low, row.high), (row.low_samples, row.high_samples))
        if known
        else "",
        "at the snapshots around": f"[{row.low_snapshots:.3g}, {row.high_snapshots:.3g}]"
        if known and row.low_snapshots < row.high_snapshots
        else "",
        "seeds": row.seeds,
        "note": row.note,
    }


def text(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> str:
    """Every Frechet distance at every snapshot: means over seeds. `folder` is that of the experiment."""
    rows = points(folder, experiment, tables)
    note = f"{READING} {trainings.NOTE}" if trainings.COLUMN in rows else READING
    return f"# Scores against training\n\n{note}\n\n{markdown(rows)}"


def points(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """A row for every point of the curves, for a reader: means and spreads over seeds."""
    keys, rows = [*RUN, "metric", "step", "images_seen"], charged(experiment, tables)
    numbers = rows.groupby(keys, sort=False, dropna=False).agg(
        gpu_seconds=("gpu_seconds", "mean"), score=("value", "mean"), sd=("value", "std"), seeds=("seed", "nunique")
    )
    named = numbers.rename(columns={"gpu_seconds": device_seconds(rows["device"], " of training")}).reset_index()
    return trainings.beside(named, [*RUN, "metric", "step"], spreads(folder, experiment, tables))


def spreads(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> dict[tuple[Any, ...], float]:
    """(dataset, method, variant, sampler, nfe, metric, step) -> the spread between trainings, where there are several;
    NaN where the influences of one cannot be read."""
    found: dict[tuple[Any, ...], float] = {}
    for key, by_seed in curves(folder, experiment, tables).items():
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
    write_text(
        target.with_suffix(".md"), f"# Scores at equal costs\n\n{NOTE}\n\n{markdown(shown(rows, experiment, tables))}"
    )


def draw(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `figures/progress.{svg,png}` where trainings keep snapshots."""
    if experiment["progress"]:
        save(figure(experiment, tables), folder / "figures" / NAME)


def figure(experiment: Mapping[str, Any], tables: Tables) -> Figure:
    """A row for each dataset, sampling and score: against images seen and against seconds, a line a method."""
    rows = charged(experiment, tables)
    strips = list(rows.groupby(["dataset", "sampler", "nfe", "metric"], sort=False))
    if not strips:
        return empty("Scores against training")
    figure, axes = plt.subplots(
        len(strips), 2, figsize=(6.4, 2.3 * len(strips) + 0.6), squeeze=False, sharey="row", layout="constrained"
    )
    for ((dataset, sampler, nfe, metric), strip), panels in zip(strips, axes, strict=True):
        names = {
            "images_seen": "images seen in training",
            "gpu_seconds": device_seconds(strip["device"], " of training"),
        }
        for panel, (axis, name) in zip(panels, names.items(), strict=True):
            _lines(panel, strip, axis, experiment)
            _floor(panel, tables["scores"], str(dataset), str(metric), strip)
            panel.set_xlabel(name)
            panel.set_xlim(left=0)
            panel.xaxis.set_major_formatter(EngFormatter())  # 50 k, 200 M
        panels[0].set_ylabel(str(metric))
        if strip["value"].min() > 0:
            panels[0].set_yscale("log")
            panels[0].yaxis.set_major_formatter(LogFormatter())  # 10, 100, and 20 or 30 where there is room
            panels[0].yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        panels[0].set_title(f"{dataset}, {sampler}, {nfe} calls", loc="left")
        if len(strips) > FEW:
            panels[1].legend(loc="upper left", bbox_to_anchor=(1.03, 1.04), fontsize=6.5, handlelength=3.2)
    if len(strips) <= FEW:
        legend(figure, axes.flat)
    else:
        figure.set_figwidth(8.4)
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
