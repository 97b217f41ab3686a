"""What the MLflow runs of tunings say: one for each search, and one for each of its trials, nested in it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.tracking.content import FINISHED, Content, Point, flatten, metric_name
from pipeline_lib.tuning._ends import at_end

TRIED = "trials.parquet"


def tunings(
    folder: Path, one: Mapping[str, Any], experiment: Mapping[str, Any]
) -> Iterator[tuple[Content, list[Content]]]:
    """Every finished search of the samplings of a trained run, with its trials."""
    for sampling in samplings_of(experiment, one["method"]):
        home = folder / one["path"] / sampling / "tune"
        if (home / "manifest.json").is_file() and (home / TRIED).is_file():
            made, end = Manifest.load(home / "manifest.json"), round(1000 * (home / TRIED).stat().st_mtime)
            tuning = experiment["samplings"][sampling]["tuning"]
            for nfe, rows in tables.read(home / TRIED, tables.TRIALS).groupby("nfe"):
                path = f"{one['path']}/{sampling}/tune/nfe{nfe:04d}"
                name, identity = f"tune {sampling}, {nfe} calls", {"tuning": made.fingerprint, "nfe": nfe}
                yield (
                    _search(path, name, identity, tuning, rows, end),
                    [_trial(f"{path}/{row['trial']:04d}", identity, row, end) for row in _rows(rows)],
                )


def _search(
    path: str, name: str, identity: dict[str, Any], tuning: Mapping[str, Any], rows: pd.DataFrame, end: int
) -> Content:
    """The parent: how was searched, what was found, and its value."""
    chosen = rows[rows["chosen"].eq("chosen")]
    found = json.loads(chosen["options"].iloc[0]) if len(chosen) else None
    params = flatten(tuning, "tuning.") | (flatten(found, "found.") if found else {"found": "no correction"})
    sums = {"calls": float(rows["calls"].sum()), "trials": float(len(rows))}
    points = [Point(f"tuning/{key}", 0, value) for key, value in sums.items()]
    points += [point for row in _rows(chosen) for point in _points(row)]
    spent = round(1000 * float(rows["seconds"].sum()))
    tags = {"kind": "tuning", "at_end": ", ".join(at_end(rows)) or "no"}
    return Content(path, name, identity, FINISHED, end - spent, end, params, tags=tags, points=points)


def _trial(path: str, identity: dict[str, Any], row: Mapping[str, Any], end: int) -> Content:
    """A child: the constants that were tried and what they gave."""
    correction = json.loads(row["options"]) or {}
    params = {"round": row["round"], **flatten(correction)}
    name = ", ".join([row["round"], *(f"{k} {row[k]:g}" for k in ("b", "k", "window", "cutoff") if pd.notna(row[k]))])
    tags = {"kind": "trial", "chosen": "true" if row["chosen"] else "false"}
    about = {**identity, "trial": row["trial"]}
    return Content(path, name, about, FINISHED, end, end, params, tags=tags, points=_points(row))


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _points(row: Mapping[str, Any]) -> list[Point]:
    return [Point(metric_name(row["metric"]), 0, float(row["score"]))] if pd.notna(row["score"]) else []
