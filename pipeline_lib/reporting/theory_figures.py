"""Figures of the analytic section: exact errors against t on one page, and the leak experiment."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.reporting.style import COLOURS, DASHES, GREY, empty, legend, save
from pipeline_lib.reporting.theory import records, sampler

PANELS: dict[str, tuple[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "KL, nats\n(cumulative error)": ("log", lambda c: c["kl"]),
    "modular error, nats\n(KL(p||q) over p)": ("log", lambda c: c["modular_p_p"]),
    "MMD²": ("log", lambda c: c["mmd2"]),
    "delta_t": ("log", lambda c: c["delta"]),
    "eps norm, sampling\nover training": ("linear", lambda c: c["eps_norm_sampling"] / c["eps_norm_training"]),
}
QUANTITIES = {"kl": "KL, nats", "mmd2": "MMD²", "spread-gap": "spread gap", "eps-norm-ratio": "eps-norm ratio"}
DOWNSCALED = (":", "-.")  # the paper's reading, the measured error
SMALLEST = 1e-9  # of a logarithmic axis: what is below is rounding


def draw(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Write `figures/{theory,leak,corrections}.{svg,png}` below `folder`."""
    tables = records(folder, experiment)
    save(theory(tables["exact"], experiment), folder / "figures" / "theory")
    save(leak(tables["leak"], experiment), folder / "figures" / "leak")
    save(corrections(tables["corrections"]), folder / "figures" / "corrections")


def theory(exact: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """A column of panels per problem, a row per quantity, a curve per chain; sampling runs to the right."""
    problems = [p for p in experiment["analytic"]["problems"] if p in set(exact["problem"])]
    if not problems:
        return empty("Exact errors")
    names = list(dict.fromkeys(exact["setting"]))
    figure, axes = _panels(len(PANELS), problems)
    for j, problem in enumerate(problems):
        for setting, curve in exact[exact["problem"].eq(problem)].groupby("setting", sort=False):
            place = names.index(str(setting))
            look = {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place // len(COLOURS)], "lw": 1.1}
            share = curve["step"] / curve["step"].max()
            for axis, (_, value) in zip(axes[:, j], PANELS.values(), strict=True):
                axis.plot(share, value(curve).replace(np.inf, np.nan), label=setting, **look)
    for i, (name, (scale, _)) in enumerate(PANELS.items()):
        axes[i, 0].set_ylabel(name)
        for axis in axes[i]:
            _scale(axis, scale)
    legend(figure, axes.flat)
    return figure


def leak(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """Exact curves after each leak, with the estimates from sampled chains as points."""
    problems = [p for p in experiment["analytic"]["problems"] if p in set(rows["problem"])]
    if not problems:
        return empty("Leak experiment")
    figure, axes = _panels(len(QUANTITIES), problems)
    for j, problem in enumerate(problems):
        for i, (quantity, name) in enumerate(QUANTITIES.items()):
            panel = rows[rows["problem"].eq(problem) & rows["quantity"].eq(quantity)]
            for place, (share, curve) in enumerate(panel.groupby("leak", sort=False)):
                _leaked(axes[i, j], curve.sort_values("step"), float(str(share)), COLOURS[place % len(COLOURS)])
            axes[i, 0].set_ylabel(name)
            if quantity == "kl":
                _scale(axes[i, j], "log")
    legend(figure, axes.flat)
    return figure


def corrections(rows: pd.DataFrame) -> Figure:
    """The error at x_0 against lambda: a row of panels per problem and sampler, a column per denoiser."""
    if rows.empty:
        return empty("Corrections of the sampler")
    lines, names = list(rows.groupby(["problem", "eta"], sort=False)), list(dict.fromkeys(rows["setting"]))
    size = (2.3 * len(names) + 0.8, 1.5 * len(lines) + 1.0)
    figure, axes = plt.subplots(
        len(lines), len(names), figsize=size, squeeze=False, sharex=True, sharey="row", layout="constrained"
    )
    for ((problem, level), line), panels in zip(lines, axes, strict=True):
        eta = float(str(level))
        panels[0].set_ylabel(f"{problem}\n{sampler(eta)}\nKL at x_0, nats")
        for setting, panel in zip(names, panels, strict=True):
            cells = line[line["setting"].eq(setting)].groupby("nfe", sort=False)
            for place, (nfe, cell) in enumerate(cells):
                _corrected(panel, cell, f"{nfe} calls", COLOURS[place % len(COLOURS)], noisy=eta > 0)
            panel.set_yscale("log")
            panel.axvline(1, color=GREY, lw=0.5)
            panel.grid(color=GREY, alpha=0.15, lw=0.5)
    for name, top, bottom in zip(names, axes[0], axes[-1], strict=True):
        top.set_title(name, loc="left")
        bottom.set_xlabel("λ of epsilon scaling")
    legend(figure, axes.flat)
    return figure


def _corrected(axes: Axes, cell: pd.DataFrame, label: str, colour: str, noisy: bool) -> None:
    kinds = {str(kind): one for kind, one in cell.groupby("correction", sort=False)}
    scaled = kinds.pop("epsilon-scaling")
    axes.plot(scaled["factor"], scaled["kl"], color=colour, lw=1.1, label=label)
    best = scaled.iloc[int(scaled["kl"].to_numpy().argmin())]
    axes.plot(best["factor"], best["kl"], marker="v", ms=4, color=colour)
    axes.plot(1, kinds.pop("none")["kl"].iloc[0], marker="o", ms=3.5, color=colour)
    for (kind, one), dash in zip(kinds.items(), DOWNSCALED, strict=False) if noisy else ():
        axes.axhline(one["kl"].iloc[0], color=colour, lw=0.8, ls=dash)
        axes.plot([], [], color=GREY, lw=0.8, ls=dash, label=kind)


def _leaked(axes: Axes, curve: pd.DataFrame, share: float, colour: str) -> None:
    total = curve["step"].max()
    axes.plot(
        curve["step"] / total,
        curve["exact"],
        color=colour,
        lw=1.1,
        label=f"true score for {100 * share:.0f} % of the steps",
    )
    known = curve[curve["estimate"].notna()]
    if len(known):
        bars = [known["estimate"] - known["low"], known["high"] - known["estimate"]]
        axes.errorbar(known["step"] / total, known["estimate"], bars, fmt=".", ms=3, lw=0.6, color=colour)


def _panels(rows: int, problems: list[str]) -> tuple[Figure, Any]:
    size = (max(3.4, 2.5 * len(problems)), 1.45 * rows + 1.0)
    figure, axes = plt.subplots(rows, len(problems), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for j, problem in enumerate(problems):
        axes[0, j].set_title(problem, loc="left")
        axes[-1, j].set_xlabel("share of the steps done")
    for axis in axes.flat:
        axis.grid(color=GREY, alpha=0.15, lw=0.5)
    return figure, axes


def _scale(axes: Axes, scale: str) -> None:
    axes.set_yscale(scale)
    if scale == "log":
        axes.set_ylim(bottom=max(SMALLEST, axes.get_ylim()[0]))
