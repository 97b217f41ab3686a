"""Scores against the length of the weight average: samplings that differ in the average alone, as figure and table.

The result of a training is its main average, that of `ema_decay`; the others are looked at, never chosen from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.config.averages import weights
from pipeline_lib.config.models import EMA
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import AVERAGES, write
from pipeline_lib.reporting.collect import joined
from pipeline_lib.reporting.comparisons import Tables, each
from pipeline_lib.reporting.curves import MANY, style
from pipeline_lib.reporting.intervals import paired
from pipeline_lib.reporting.style import GREY, empty, legend, save
from pipeline_lib.reporting.summaries import (
    control_value,
    done_scores,
    frechet,
    label,
    markdown,
    number,
    with_interval,
    with_spread,
)

NAME = "averages"
READING = (
    "Averages of different length that were kept in the same trainings, at their end, sampled on the same chains. "
    "Half-life: images after which what the weights were before counts half, by the decay of the last update (a "
    "warm-up may hold it below what was asked for); 0: the weights themselves. The result of a training is its main "
    "average, that of ema_decay, and no other is ever chosen."
)
CAPTION = (
    "Means over training seeds (thin lines: single seeds; bands: 95 % intervals over samples). Ringed: the main "
    "average, the result. Dotted: what held-out images get."
)
RING: Any = {"ls": "none", "marker": "o", "ms": 8, "mfc": "none", "zorder": 4}
ROOM = 0.12  # of the axis, for the number at a tick
RUN = ["dataset", "method", "variant", "strip", "nfe", "metric"]


def measure(experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of AVERAGES: the Frechet distances of every seed, from the shortest average to the longest."""
    about = experiment["averages"]
    done = frechet(done_scores(tables["scores"]))
    drawn = done[done["sampler"].isin(list(about["alike"]))]
    of = [f"{r.dataset}/{r.method}/{r.variant}/s{r.seed}" for r in each(drawn)]
    kept = pd.Series([place in about["halflives"] for place in of], index=drawn.index, dtype=bool)
    rows = drawn[kept]  # an empty list would select columns
    places = [place for place in of if place in about["halflives"]]
    names = [weights(experiment["samplings"][sampler]) for sampler in rows["sampler"]]
    found = rows[[c.name for c in AVERAGES if c.name in rows]].assign(
        strip=rows["sampler"].map(about["alike"]),
        average=names,
        halflife_images=[about["halflives"][place][name] for place, name in zip(places, names, strict=True)],
    )
    placed = found.assign(place=found.groupby(RUN, sort=False).ngroup())
    ordered = placed.sort_values(["place", "halflife_images", "seed"], kind="stable").drop(columns="place")
    return joined([ordered], AVERAGES)


def shown(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """A line for each average: its length, its score over seeds, and how that differs from the main one's."""
    lines = []
    for key, strip in rows.groupby(RUN, sort=False):
        dataset, method, variant, sampler, nfe, metric = key
        by_name = {name: line.set_index("seed")["value"].astype(float) for name, line in strip.groupby("average")}
        main = by_name.get(EMA, pd.Series(dtype=float))
        for name in strip["average"].unique():
            values, difference = by_name[name], paired(by_name[name], main)
            lines.append(
                {
                    "dataset": dataset,
                    "method": label(experiment, str(method), str(variant)),
                    "sampler": sampler,
                    "nfe": nfe,
                    "metric": metric,
                    "average": name,
                    "half-life, images": number(
                        float(f"{strip.loc[strip['average'].eq(name), 'halflife_images'].mean():.4g}")
                    ),
                    "score": with_spread(values.mean(), values.std()),
                    "seeds": len(values),
                    "difference to the main average": ""
                    if name == EMA
                    else with_interval(difference.mean, difference.low, difference.high),
                }
            )
    return pd.DataFrame(lines)


def write_table(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `tables/averages.{parquet,csv,md}` where samplings differ in the average alone."""
    if not experiment["averages"]:
        return
    rows, target = measure(experiment, tables), folder / "tables" / NAME
    write(target.with_suffix(".parquet"), rows, AVERAGES, {"experiment": experiment["experiment"]})
    write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
    text = f"# Scores against the length of the weight average\n\n{READING}\n\n{markdown(shown(rows, experiment))}"
    write_text(target.with_suffix(".md"), text)


def draw(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `figures/averages.{svg,png}` where samplings differ in the average alone."""
    if experiment["averages"]:
        save(figure(experiment, tables), folder / "figures" / NAME)


def figure(experiment: Mapping[str, Any], tables: Tables) -> Figure:
    """A panel for each dataset, way of drawing, number of calls and score; a line for each method."""
    strips = list(measure(experiment, tables).groupby(["dataset", "strip", "nfe", "metric"], sort=False))
    if not strips:
        return empty("Length of the weight average")
    figure, axes = plt.subplots(
        len(strips), 1, figsize=(4.4, 2.5 * len(strips) + 0.6), squeeze=False, layout="constrained"
    )
    for ((dataset, sampler, nfe, metric), rows), panel in zip(strips, axes.flat, strict=True):
        _lines(panel, rows, experiment)
        panel.plot([], [], color=GREY, label="main average: the result", **RING)
        floor = control_value(tables["scores"], str(dataset), str(metric), "floor")
        if pd.notna(floor):
            panel.axhline(floor, ls=":", lw=1, color=GREY, label="held-out images", zorder=1)
        _lengths(panel, rows["halflife_images"].astype(float))
        panel.set_ylabel(str(metric))
        panel.set_title(f"{dataset}, {sampler}, {nfe} calls", loc="left")
    legend(figure, axes.flat)
    return figure


def _lines(panel: Axes, rows: pd.DataFrame, experiment: Mapping[str, Any]) -> None:
    methods = list(rows.groupby(["method", "variant"], sort=False))
    for (method, variant), line in methods:
        colour, dash = style(experiment, str(method), str(variant))
        points = line.groupby("average").agg(
            x=("halflife_images", "mean"), y=("value", "mean"), low=("low", "mean"), high=("high", "mean")
        )
        points = points.astype(float).sort_values("x")
        name, main = label(experiment, str(method), str(variant)), points[points.index == EMA]
        panel.plot(points["x"], points["y"], color=colour, ls=dash, marker=".", ms=4, label=name, zorder=3)
        panel.plot(main["x"], main["y"], color=colour, **RING)
        if len(methods) > MANY:
            continue
        panel.fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.15, lw=0, zorder=2)
        for _, one in line.groupby("seed") if line["seed"].nunique() > 1 else []:
            panel.plot(one["halflife_images"], one["value"], color=colour, ls=dash, lw=0.5, alpha=0.7, zorder=3)


def _lengths(panel: Axes, values: "pd.Series[float]") -> None:
    """A logarithmic axis with a place for 0, and ticks where there are averages, as far as their numbers have room."""
    known = sorted({float(f"{v:.3g}") for v in values})
    smallest = next((v for v in known if v > 0), 1.0)
    panel.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    panel.minorticks_off()
    shown = _apart(known, panel.xaxis.get_transform().transform(np.array(known)))
    panel.set_xticks(shown, [f"{v:,.0f}" for v in shown])
    panel.set_xlim(-0.25 * smallest if known[0] == 0 else 0.8 * smallest, 1.25 * max(known[-1], smallest))
    panel.set_xlabel("half-life of the weight average, images")


def _apart(values: Sequence[float], places: np.ndarray) -> list[float]:
    """Those of rising values whose places on the axis leave room for a number since the last that is kept."""
    kept: list[int] = []
    for k, place in enumerate(places):
        if not kept or place - places[kept[-1]] >= ROOM * (places[-1] - places[0]):
            kept.append(k)
    return [values[k] for k in kept]
