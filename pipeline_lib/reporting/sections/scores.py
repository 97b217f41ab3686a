"""The section of the scores: methods by sampling, every cell with its protocol, and the cells without a score."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pipeline_lib.records.tables import SCORES
from pipeline_lib.reporting import trainings
from pipeline_lib.reporting.collect import CONTROLS
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.summaries import (
    RUN,
    SPREAD,
    cells,
    done_scores,
    frechet,
    label,
    missing_scores,
    number,
    score_summary,
    with_interval,
    with_spread,
)

PROTOCOL = [c.name for c in SCORES[SCORES.index(next(c for c in SCORES if c.name == "extractor")) :]]
YARDSTICKS = {
    "floor": "floor (held-out real images)",
    "reconstruction": "reconstruction (these through the autoencoder)",
    "ceiling": "ceiling (noise)",
}
LEVELS = (trainings.COLUMN, "se", *SPREAD)  # of the spread: over trainings, over samples, over sets of samples
NUMBERS = ("score", *LEVELS, "difference", "nfe", "samples", "reference_images")  # texts that begin with a number


@dataclass(frozen=True)
class Matrix:
    """One metric on one dataset: a row for each method, a column for each sampling and number of calls."""

    title: str
    table: Table
    yardsticks: str
    is_frechet: bool


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    experiment = results.experiment
    if not experiment["instances"]:
        return None
    rows = results.tables["scores"]
    summary = with_score(score_summary(rows, experiment), rows)
    summary = trainings.beside(summary, [*RUN, "metric"], trainings.of_scores(results.folder, rows))
    found = matrices(summary, experiment)
    values = {
        "distances": [m for m in found if m.is_frechet],
        "others": [m for m in found if not m.is_frechet],
        "scores": score_table(rows, summary, experiment),
        "spread_note": trainings.PROSE if trainings.COLUMN in summary else "",
        "has_control": bool((summary["control"] != "").any()),
        "missing_scores": table(missing_scores(rows, experiment), (), ("note",)),
    }
    return Section("Scores", "scores", render("scores", values))


def with_score(summary: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """A score summary with the column `score`: mean and spread over seeds, or of a single seed the interval over
    samples."""
    ends = done_scores(scores).groupby([*RUN, "metric"], sort=False)[["low", "high"]].first().reset_index()
    rows = summary.merge(ends, on=[*RUN, "metric"], how="left")
    values = zip(*(rows[c] for c in ("mean", "sd", "seeds", "low", "high")), strict=True)
    return rows.assign(score=[with_spread(m, sd) if n > 1 else with_interval(m, lo, hi) for m, sd, n, lo, hi in values])


def matrices(summary: pd.DataFrame, experiment: Mapping[str, Any]) -> list[Matrix]:
    """Samplings side by side, which draw from the same trainings; `summary` as `with_score` gives it."""
    distances, found = set(frechet(summary)["metric"]), []
    for (dataset, metric), rows in summary.groupby(["dataset", "metric"], sort=False):
        named = rows.assign(
            run=[label(experiment, *who) for who in zip(rows["method"], rows["variant"], strict=True)],
            cell=[f"{sampler}, {nfe} calls" for sampler, nfe in zip(rows["sampler"], rows["nfe"], strict=True)],
        )
        wide = named.pivot(index="run", columns="cell", values="score").reindex(named["run"].unique())
        order = [c for c in (f"{sampler}, {nfe} calls" for sampler, nfe in cells(experiment)) if c in wide]
        shown = wide[order].reset_index().rename(columns={"run": "method"})
        known = [f"{name} {number(rows[c].iloc[0])}" for c, name in YARDSTICKS.items() if pd.notna(rows[c].iloc[0])]
        text = f"{', '.join(known)}." if known else ""
        found.append(
            Matrix(f"{metric} on {dataset}", table(shown, order, shown.columns), text.capitalize(), metric in distances)
        )
    return found


def score_table(
    scores: pd.DataFrame, summary: pd.DataFrame, experiment: Mapping[str, Any], yardsticks: bool = True
) -> Table:
    """Every cell of `summary` with its difference to the control and its protocol, after the yardsticks."""
    ways = protocol(scores)
    names = [label(experiment, *who) for who in zip(summary["method"], summary["variant"], strict=True)]
    runs = summary.assign(
        of=names,
        difference=list(map(with_interval, *(summary[c] for c in ("difference", "difference_low", "difference_high")))),
        control=[label(experiment, *c.split("/")) if c else "" for c in summary["control"]],
    ).merge(ways, on=[*RUN, "metric"], how="left")
    sticks = scores[scores["method"].isin(CONTROLS.values()) & scores["value"].notna() & yardsticks]
    named: dict[str, Any] = {
        "of": sticks["control"].map(YARDSTICKS),
        "score": sticks["value"].map(number),
        "control": "",
    }
    sticks = sticks.drop(columns="nfe").assign(**named, **_short(sticks))
    rows = pd.concat([sticks, runs], ignore_index=True).sort_values(
        "dataset", kind="stable", key=lambda names: names.map(list(experiment["datasets"]).index)
    )
    columns = ["dataset", "of", "sampler", "nfe", "metric", "score", "seeds", *LEVELS, "control", "difference"]
    kept = [c for c in [*columns, *PROTOCOL] if c in rows and rows[c].replace("", pd.NA).notna().any()]
    shown = table(rows[kept].rename(columns={"of": "method"}), NUMBERS, ("method", "score"))
    marks = {place for place, method in enumerate(rows["method"]) if method in CONTROLS.values()}
    return replace(shown, marks=marks)


def protocol(scores: pd.DataFrame) -> pd.DataFrame:
    """How the scores of each cell and metric came about: a row for each, several ways (of seeds) in one text."""
    done, keys = done_scores(scores), [*RUN, "metric"]
    different = done.assign(**_short(done))[[*keys, *PROTOCOL]].drop_duplicates()
    found: dict[tuple[Any, ...], list[dict[str, None]]] = {}
    for row in different.itertuples(index=False, name=None):
        texts = found.setdefault(row[: len(keys)], [{} for _ in PROTOCOL])
        for text, value in zip(texts, row[len(keys) :], strict=True):
            text |= {} if pd.isna(value) else {number(value): None}
    rows = [(*key, *map(", ".join, texts)) for key, texts in found.items()]
    return pd.DataFrame(rows, columns=[*keys, *PROTOCOL])


def _short(rows: pd.DataFrame) -> dict[str, "pd.Series[Any]"]:
    return {c: rows[c].str.slice(0, 12) for c in PROTOCOL if c.endswith("_sha")}
