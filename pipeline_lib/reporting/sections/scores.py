"""The section of the scores: their means beside floor and ceiling, the cells without one, and the protocol."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline_lib.records.tables import SCORES
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.summaries import score_summary, with_interval, with_spread, without_unused_control

PROTOCOL = [c.name for c in SCORES[SCORES.index(next(c for c in SCORES if c.name == "extractor")) :]]


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    rows = results.tables["scores"]
    values = {
        "scores": score_table(rows, results.experiment),
        "missing_scores": missing_scores(rows),
        "protocol": protocol(rows),
    }
    return Section("Scores", "scores", render("scores", values))


def score_table(scores: pd.DataFrame, experiment: Mapping[str, Any]) -> Table:
    """Mean and spread over seeds beside floor and ceiling."""
    summary = score_summary(scores, experiment)
    rows = summary.assign(
        mean=list(map(with_spread, summary["mean"], summary["sd"])),
        difference=list(map(with_interval, *(summary[c] for c in ("difference", "difference_low", "difference_high")))),
    ).drop(columns=["sd", "difference_low", "difference_high"])
    shown = table(without_unused_control(rows))
    return replace(shown, numeric=shown.numeric | {"mean", "difference"})


def missing_scores(scores: pd.DataFrame) -> Table:
    """The cells that have no number, and why."""
    columns = ["dataset", "method", "variant", "seed", "sampler", "nfe", "metric", "status", "note"]
    return table(scores.loc[scores["status"] != "done", columns])


def protocol(scores: pd.DataFrame) -> Table:
    """How the numbers came about: one row for each way."""
    columns = ["dataset", "metric", *PROTOCOL, "note"]
    shown = scores.loc[scores["status"] == "done", columns].drop_duplicates()
    shas = {c: shown[c].str.slice(0, 12) for c in columns if c.endswith("_sha")}
    return table(shown.assign(**shas))
