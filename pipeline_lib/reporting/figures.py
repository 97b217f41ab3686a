"""The figures stage: cumulative error along the chain (Li and van der Schaar, 2024, Fig. 2) and training curves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.tables import read
from pipeline_lib.reporting import anatomy, averages, before_after, image_pairs, progress, sweeps, tuning
from pipeline_lib.reporting.collect import collect, manifest
from pipeline_lib.reporting.curves import Line, Strip, panels, style
from pipeline_lib.reporting.style import STYLE, empty, legend, save
from pipeline_lib.reporting.summaries import cells, label, main_bandwidth, main_sampling, marginal, of_main_sampling

SIMPLE = "loss/simple"
Who = tuple[str, str, str, int]  # dataset, method, variant, seed


@dataclass(frozen=True)
class Drawing:
    """One figure of the cumulative error: samplings and a reading of the bandwidth, and the name of its files.

    `main`: each method in its first sampling only.
    """

    name: str
    samplers: tuple[str, ...]
    bandwidth: str
    main: bool = False

    @property
    def title(self) -> str:
        """In words."""
        return f"{', '.join(self.samplers)}, bandwidth {self.bandwidth}"


def drawings(experiment: Mapping[str, Any]) -> list[Drawing]:
    """fig2 is the first sampling of each method at the main bandwidth; the others carry theirs in their names.

    A sampling that is the first of all its methods is in fig2 as a whole, and has no other figure at that bandwidth.
    """
    bandwidth = main_bandwidth(experiment)
    methods = [m for m in dict.fromkeys(i["method"] for i in experiment["instances"]) if samplings_of(experiment, m)]
    first = {method: main_sampling(experiment, method) for method in methods}
    seconds = {s for method in methods for s in samplings_of(experiment, method) if s != first[method]}
    readings = sorted(experiment["errors"]["bandwidths"], key=lambda b: b != bandwidth)
    others = [(s, b) for b in readings for s in experiment["samplings"] if b != bandwidth or s in seconds]
    shown = tuple(s for s in experiment["samplings"] if s in first.values())
    return [Drawing("fig2", shown, bandwidth, main=True), *(Drawing(f"fig2-{s}-{b}", (s,), b) for s, b in others)]


def run(folder: Path, experiment: dict[str, Any]) -> None:
    """Write `figures/{fig2,training}.{svg,png}` below `folder`, and a fig2-* for every other reading that has data.

    Also `figures/fig3` and fig3-* of the other kernels where a method has a control, `figures/anatomy-*` with an
    anatomy, `figures/pairs-*` of samplings with a control, and `figures/{theory,leak,corrections}` with an analytic
    section.
    """
    if experiment["analytic"]:
        from pipeline_lib.reporting import theory_figures  # and with it torch, which takes seconds

        with mpl.rc_context(STYLE):
            theory_figures.draw(folder, experiment)
    if not experiment["instances"]:
        return
    tables = collect(folder, experiment)
    errors = tables["cumulative_error"]
    drawn = folder / "figures"
    for old in [
        *drawn.glob("fig2-*"),
        *drawn.glob(f"{before_after.NAME}[.-]*"),
    ]:  # of samplings and controls that are no more
        old.unlink()
    with mpl.rc_context(STYLE):
        for drawing in drawings(experiment):
            rows = _rows(marginal(errors), drawing, experiment)
            if len(rows) or drawing.name == "fig2":
                save(cumulative_error(rows, experiment), folder / "figures" / drawing.name)
        for name, kernel in before_after.drawings(experiment).items():
            if errors["kernel"].eq(kernel).any() or name == before_after.NAME:
                given = errors, tables["cumulative_error_difference"], experiment, kernel
                save(before_after.before_after(*given), folder / "figures" / name)
        save(training(dict(histories(folder, experiment)), experiment), folder / "figures" / "training")
        sweeps.draw(folder, experiment)
        if tuning.has(experiment):
            save(tuning.sensitivity(tuning.trials(folder, experiment), experiment), folder / "figures" / tuning.FIGURE)
        progress.draw(folder, experiment, tables)
        averages.draw(folder, experiment, tables)
        anatomy.draw(folder, experiment, tables["anatomy"])
        image_pairs.draw(folder, experiment, tables["scores"])


def _rows(errors: pd.DataFrame, drawing: Drawing, experiment: Mapping[str, Any]) -> pd.DataFrame:
    rows = errors[errors["sampler"].isin(drawing.samplers) & errors["bandwidth"].eq(drawing.bandwidth)]
    return of_main_sampling(rows, experiment) if drawing.main else rows


def cumulative_error(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """A row of panels per dataset, sampling and number of calls, a panel per kernel, a curve per method and variant."""
    if rows.empty:
        return empty("MMD² along the sampling chain")
    strips = []
    several, order = rows["sampler"].nunique() > 1, list(experiment["samplings"])
    for dataset in experiment["datasets"]:
        for sampler, nfe in sorted(cells(experiment), key=lambda cell: (order.index(cell[0]), cell[1])):
            cell = rows[rows["dataset"].eq(dataset) & rows["sampler"].eq(sampler) & rows["nfe"].eq(nfe)]
            name = f"{dataset}, {sampler}\n{nfe} calls" if several else f"{dataset}, {nfe} calls"
            if len(cell):
                strips.append(Strip(name, list(_lines(cell, experiment))))
    return panels(strips, experiment["errors"]["kernels"])


def _lines(cell: pd.DataFrame, experiment: Mapping[str, Any]) -> Iterator[Line]:
    for key, rows in cell.groupby(["method", "variant"], sort=False):
        method, variant = map(str, key)
        yield Line(label(experiment, method, variant), rows, *style(experiment, method, variant))


def training(rows: Mapping[Who, pd.DataFrame], experiment: Mapping[str, Any]) -> Figure:
    """The loss of every run against the images that it saw, a panel per dataset.

    The simple term where all runs of the dataset have it, since totals of different objectives do not compare.
    """
    datasets = [d for d in experiment["datasets"] if any(k[0] == d for k in rows)]
    if not datasets:
        return empty("Training loss")
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(max(3.4, 2.6 * len(datasets)), 2.6), squeeze=False, layout="constrained"
    )
    for dataset, panel in zip(datasets, axes[0], strict=True):
        here = {who: found for who, found in rows.items() if who[0] == dataset}
        curves = of_key(here, SIMPLE)
        common = len(curves) == len(here)
        for (_, method, variant, _), curve in (curves if common else of_key(here, "loss")).items():
            colour, dash = style(experiment, method, variant)
            name = label(experiment, method, variant)
            panel.plot(curve["images"], curve["value"], color=colour, ls=dash, lw=1, label=name)
        panel.set_title(dataset, loc="left")
        panel.set_yscale("log" if all(line.get_ydata().min() > 0 for line in panel.lines) else "linear")
        panel.set_xlabel("images seen")
        panel.set_ylabel("training loss, simple term" if common else "training loss, total")
    legend(figure, axes.flat)
    return figure


def of_key(rows: Mapping[Who, pd.DataFrame], key: str) -> dict[Who, pd.DataFrame]:
    """The curve of one logged quantity of every run that has it."""
    curves = {who: found[found["key"].eq(key)] for who, found in rows.items()}
    return {who: curve for who, curve in curves.items() if len(curve)}


def histories(folder: Path, experiment: Mapping[str, Any]) -> Iterator[tuple[Who, pd.DataFrame]]:
    """Who was trained, and the history of every finished training that can be read and has a loss."""
    for one in experiment["instances"]:
        made = manifest(folder, f"{one['path']}/train")
        if made is None or "history.parquet" not in made.files:
            continue
        try:
            rows = read(Path(made.folder) / "history.parquet")
        except PipelineError:
            continue
        if rows["key"].eq("loss").any():
            yield (one["dataset"], one["method"], one["variant"], one["seed"]), rows
