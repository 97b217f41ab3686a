"""The section of what the numbers say: the experiment's checks, few sentences, and a row for each method."""

import pandas as pd

from pipeline_lib.reporting import progress
from pipeline_lib.reporting.check import verdicts
from pipeline_lib.reporting.comparisons import sample_differences
from pipeline_lib.reporting.figures import drawings
from pipeline_lib.reporting.findings import VERDICTS, at_equal_costs, important, overview, readings
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.summaries import device_seconds, frechet, score_summary, with_interval

NUMBERS = ("difference",)  # texts that begin with a number


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    experiment, tables = results.experiment, results.tables
    if not experiment["instances"]:
        return None
    found, summary = overview(tables, experiment), score_summary(frechet(tables["scores"]), experiment)
    said = list(important(found, summary, sample_differences(tables, "method"), experiment))
    if experiment["progress"]:
        seconds = device_seconds(tables["progress"]["device"], " of training")
        said += at_equal_costs(progress.equal_costs(results.folder, experiment, tables), seconds, experiment)
    values = {
        "verdicts": verdicts(tables, experiment),
        "important": said,
        "methods": shown(found[~found["grid"]]) if len(found) else Table([], []),
        "points": shown(found[found["grid"]]) if len(found) else Table([], []),
        "kernel": experiment["errors"]["kernels"][0],
        "readings": readings(tables, experiment),
        "main": drawings(experiment)[0].title,
    }
    return Section("Findings", "findings", render("findings", values))


def shown(found: pd.DataFrame) -> Table:
    """An overview as a reader sees it: counts as '6 of 6'."""
    pairs = found["pairs"].gt(0)
    columns = {
        "method": found["label"],
        "dataset": found["dataset"],
        "sampler": found["sampler"],
        "nfe": found["nfe"],
        **{kind: found[kind].astype(str) + " of " + found["curves"].astype(str) for kind in VERDICTS},
        "steps above null": found["above_null"].map("{:.0%}".format, na_action="ignore"),
        "rank correlation": found["rank_correlation"].map("{:.2f}".format, na_action="ignore"),
        "control": found["control"],
        "difference": list(map(with_interval, found["difference"], found["low"], found["high"])),
        "half-width over seeds": found["half_width"].astype(float),
        "lower": (found["below"].astype(str) + " of " + found["pairs"].astype(str)).where(pairs, ""),
        "higher": (found["above"].astype(str) + " of " + found["pairs"].astype(str)).where(pairs, ""),
    }
    numeric = (*NUMBERS, *VERDICTS, "steps above null", "rank correlation", "lower", "higher")
    return table(pd.DataFrame(columns), numeric, ("method", "nfe"))
