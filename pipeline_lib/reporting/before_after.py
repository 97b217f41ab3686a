"""The cumulative error before and after regularisation (Li and van der Schaar, 2024, Fig. 3).

Before is the control of a method; after is the method itself, measured against q(x_t) and, where that differs, against
what its network was given at t while it trained. The published figure uses the latter for the regularised model. Below
stands the difference of the first two curves, paired by chain, whose band is narrower than theirs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.reporting.curves import Axis, Line, axis, curve, draw, power
from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, empty, legend
from pipeline_lib.reporting.summaries import label, main_bandwidth, main_sampling, marginal

NAME = "fig3"
COLUMNS = 5  # pairs beside each other
AFTER, OWN, DIFFERENCE = COLOURS[0], COLOURS[4], COLOURS[1]  # blue, amber, vermilion: in every panel the same
BEFORE, BEFORE_DASH = "#1a1a1a", DASHES[1]
Who = tuple[str, str]  # method, variant


@dataclass(frozen=True)
class Pair:
    """One method beside its control in one cell: two panels above each other. `shared` have the same y axes."""

    name: str
    shared: tuple[str, str, int]  # dataset, sampling, calls
    before: pd.DataFrame
    after: pd.DataFrame
    own: pd.DataFrame
    difference: pd.DataFrame

    @property
    def lines(self) -> list[Line]:
        """Curves of the upper panel; the control, dashed and without a band, above the others."""
        found = [
            Line("after: the method", self.after, AFTER, DASHES[0]),
            Line("after, against training inputs", self.own, OWN, DASHES[2]),
            Line("before: the control", self.before, BEFORE, BEFORE_DASH, band=False),
        ]
        return [line for line in found if len(line.rows)]


def drawings(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Name of the files -> kernel: the figure is drawn for each kernel, `fig3` for the first."""
    if not pairs(experiment):
        return {}
    first, *others = experiment["errors"]["kernels"]
    return {NAME: first, **{f"{NAME}-{kernel}": kernel for kernel in others}}


def pairs(experiment: Mapping[str, Any]) -> list[tuple[Who, Who]]:
    """(method, variant) of every trained run whose control is another method, and of the control.

    Points of a grid are left out: they have a sweep of their own.
    """
    trained = dict.fromkeys((i["method"], i["variant"]) for i in experiment["instances"])
    found = []
    for method, variant in trained:
        about = experiment["methods"][method]["variants"][variant]
        before, _, of = (about["control"] or "").partition("/")
        if before not in ("", method) and not about.get("family"):
            found.append(((method, variant), (before, of)))
    return found


def before_after(errors: pd.DataFrame, differences: pd.DataFrame, experiment: Mapping[str, Any], kernel: str) -> Figure:
    """Two panels per method, dataset and number of calls: the curves, and below them their difference.

    `errors` and `differences` are collected; of them, the method's first sampling at the main bandwidth is
    drawn. A difference is missing where the runs share no steps, or the control is not sampled in this way.
    """
    found = list(_pairs(errors, differences, experiment, kernel))
    if not found:
        return empty("MMD² before and after regularisation")
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    size = (max(3.4, 0.5 + 1.75 * columns), 2.75 * rows + 0.8)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=size, squeeze=False, layout="constrained", height_ratios=[1.25, 1] * rows
    )
    common = axis(pd.concat([line.rows["log_snr"] for pair in found for line in pair.lines]))
    above, below = (list(axes[start::2].flat) for start in (0, 1))
    for place, (pair, upper, lower) in enumerate(zip(found, above, below, strict=False)):
        _draw(pair, upper, lower, common)
        if place % columns == 0:
            upper.set_ylabel(f"MMD², {kernel}")
            lower.set_ylabel("difference")
        if place + columns >= len(found):
            lower.set_xlabel("log-SNR, nats →", fontsize=7.5)
    for unused in [*above[len(found) :], *below[len(found) :]]:
        unused.remove()
    _share(found, above)
    _share(found, below)
    legend(figure, [a for pair in zip(above, below, strict=True) for a in pair][: 2 * len(found)])
    return figure


def _draw(pair: Pair, upper: Axes, lower: Axes, common: Axis) -> None:
    draw(upper, pair.lines, common)
    upper.set_title(pair.name, loc="left", pad=14, fontsize=7.5)
    power(upper, pair.after, "power at x₀")
    upper.tick_params(labelbottom=False)
    common.label(lower)
    lower.axhline(0, ls=":", lw=1, color=GREY, zorder=1)
    if pair.difference.empty:
        lower.text(0.5, 0.5, "not paired", transform=lower.transAxes, ha="center", va="center", color=GREY)
        return
    rows = pair.difference.drop(columns="mmd2").rename(columns={"difference": "mmd2"})
    curve(lower, Line("difference, paired by chain: after less before", rows, DIFFERENCE, DASHES[0]), common)
    power(lower, pair.difference, "power at x₀")


def _share(found: Sequence[Pair], axes: Sequence[Axes]) -> None:
    """The same y axis for all methods in one cell of sampling."""
    first: dict[tuple[str, str, int], Axes] = {}
    for pair, panel in zip(found, axes, strict=False):
        if pair.shared in first:
            panel.sharey(first[pair.shared])
        first.setdefault(pair.shared, panel)
    for panel in first.values():
        panel.autoscale_view(scalex=False)


def _pairs(
    errors: pd.DataFrame, differences: pd.DataFrame, experiment: Mapping[str, Any], kernel: str
) -> Iterator[Pair]:
    """In the order of datasets, samplings and calls, so that panels with the same axes stand together."""
    read = {"bandwidth": main_bandwidth(experiment), "kernel": kernel}
    curves, paired = (r[(r[list(read)] == list(read.values())).all(axis=1)] for r in (errors, differences))
    steps = paired[paired["of"].eq("step")]
    for dataset, sampler, nfe in _cells(experiment):
        cell, both = (
            r[r["dataset"].eq(dataset) & r["sampler"].eq(sampler) & r["nfe"].eq(nfe)] for r in (curves, steps)
        )
        for after, before in pairs(experiment):
            mine = _of(cell, *after)
            if main_sampling(experiment, after[0]) != sampler or mine.empty:
                continue
            yield Pair(
                f"{label(experiment, *after)}\nless {label(experiment, *before)}\n{dataset}, {sampler}, {nfe} calls",
                (dataset, sampler, nfe),
                marginal(_of(cell, *before)),
                marginal(mine),
                mine[mine["law"].eq("training-inputs")],
                _of(both, *after),
            )


def _cells(experiment: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for dataset in experiment["datasets"]:
        for sampler, about in experiment["samplings"].items():
            for nfe in sorted(about["nfe"], reverse=True):
                yield dataset, sampler, nfe


def _of(rows: pd.DataFrame, method: str, variant: str) -> pd.DataFrame:
    return rows[rows["method"].eq(method) & rows["variant"].eq(variant)]
