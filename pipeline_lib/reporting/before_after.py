"""The cumulative error before and after regularisation (Li and van der Schaar, 2024, Fig. 3).

Before is the control of a method; after is the method itself, measured against q(x_t) and, where that differs, against
what its network was given at t while it trained. The published figure uses the latter for the regularised model. Below
stands the difference of the first two curves, paired by chain, whose band is narrower than theirs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.reporting.curves import Line, Strip, panels, style
from pipeline_lib.reporting.style import DASHES, empty
from pipeline_lib.reporting.summaries import label, main_bandwidth, main_sampling, marginal

NAME = "fig3"
OTHERS = DASHES[2:]  # of the curve against training inputs, in the colour of its method


def pairs(experiment: Mapping[str, Any]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
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


def before_after(errors: pd.DataFrame, differences: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """A row of panels per method, dataset and number of calls, and one of the difference.

    `errors` and `differences` are collected; of them, the method's first sampling at the main bandwidth is
    drawn. A difference is left out where the runs share no steps, or the control is not sampled in this way.
    """
    strips = list(_strips(errors, differences, experiment))
    if not strips:
        return empty("MMD² before and after regularisation")
    return panels(strips, experiment["errors"]["kernels"])


def _strips(rows: pd.DataFrame, differences: pd.DataFrame, experiment: Mapping[str, Any]) -> Iterator[Strip]:
    for after, before in pairs(experiment):
        read = {"sampler": main_sampling(experiment, after[0]), "bandwidth": main_bandwidth(experiment)}
        of_after, paired_after = (r[(r[list(read)] == list(read.values())).all(axis=1)] for r in (rows, differences))
        mine = _of(of_after, *after)
        for dataset in experiment["datasets"]:
            for nfe in sorted(set(mine.loc[mine["dataset"].eq(dataset), "nfe"])):
                cell, paired = (r[r["dataset"].eq(dataset) & r["nfe"].eq(nfe)] for r in (of_after, paired_after))
                name = f"{label(experiment, *after)}\n{dataset}, {nfe} calls"
                yield Strip(name, _lines(cell, experiment, after, before))
                steps = _of(paired, *after).query("of == 'step'")
                if len(steps):
                    yield Strip(name, [_difference(steps, experiment, after, before)], "difference")


def _difference(
    steps: pd.DataFrame, experiment: Mapping[str, Any], after: tuple[str, str], before: tuple[str, str]
) -> Line:
    names = " less ".join(label(experiment, *who) for who in (after, before))
    rows = steps.drop(columns="mmd2").rename(columns={"difference": "mmd2"})
    return Line(f"difference, paired: {names}", rows, *style(experiment, *after))


def _lines(
    cell: pd.DataFrame, experiment: Mapping[str, Any], after: tuple[str, str], before: tuple[str, str]
) -> list[Line]:
    old, new = (label(experiment, *who) for who in (before, after))
    control, mine = _of(cell, *before), _of(cell, *after)
    colour, dash = style(experiment, *after)
    found = [Line(f"before: {old}", marginal(control), *style(experiment, *before))] if len(control) else []
    found.append(Line(f"after: {new}", marginal(mine), colour, dash))
    own = mine[mine["law"].eq("training-inputs")]
    if len(own):
        other = next(d for d in OTHERS if d != dash)
        found.append(Line(f"after, against training inputs: {new}", own, colour, other))
    return found


def _of(rows: pd.DataFrame, method: str, variant: str) -> pd.DataFrame:
    return rows[rows["method"].eq(method) & rows["variant"].eq(variant)]
