"""The section of the cumulative error: its curves, their difference from the control, and their trends."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.reporting import before_after, plots
from pipeline_lib.reporting.curves import MANY
from pipeline_lib.reporting.figures import drawings
from pipeline_lib.reporting.findings import interval
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.summaries import POWER, RUN, difference_summary, error_summary, main_bandwidth


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    experiment, tables, pictures = results.experiment, results.tables, results.pictures
    if not experiment["instances"]:
        return None
    figures = [{"title": d.title, "name": d.name, **pictures.figure(d.name)} for d in drawings(experiment)]
    drawn = [{"name": n, "kernel": k, **pictures.figure(n)} for n, k in before_after.drawings(experiment).items()]
    plot = plots.error_plot(tables, experiment)
    values = {
        "experiment": experiment,
        "figures": [f for f in figures if f["link"]],
        "has_curves": bool(plot["curves"]),
        "curves": plots.script(plot),
        "many": MANY,
        "before_after": [f for f in drawn if f["link"]],
        "bandwidth": main_bandwidth(experiment),
        "trends": trend_table(tables["trends"], experiment),
        "errors": table(error_summary(tables["cumulative_error"]).drop(columns="confidence")),
        "differences": table(difference_summary(tables["cumulative_error_difference"]).fillna({"note": ""})),
        "has_control": any(v["control"] for m in experiment["methods"].values() for v in m["variants"].values()),
        "power": POWER,
    }
    return Section("Cumulative error", "errors", render("errors", values))


def trend_table(trends: pd.DataFrame, experiment: Mapping[str, Any]) -> Table:
    """One row a curve at the main bandwidth: its verdict, and one column a trend with its interval."""
    main = trends[trends["bandwidth"] == main_bandwidth(experiment)]
    keys = [*RUN, "seed", "kernel", "law", "verdict"]
    if main.empty:
        return Table(keys, [])
    texts = main.assign(interval=[interval(row) for row in main.itertuples()])
    names = list(dict.fromkeys(main["trend"]))
    wide = texts.groupby([*keys, "trend"], sort=False)["interval"].first().unstack("trend")[names]
    return table(wide.fillna("").reset_index())
