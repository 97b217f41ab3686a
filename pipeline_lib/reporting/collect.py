"""Finds what an experiment has, what failed and what is still to come, and reads its records into tidy frames.

Tables, figures, report and check all start here, from the records themselves, so none is older than the results.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipeline_lib.config.sampled import SOUGHT, is_scored, samplings_of
from pipeline_lib.exits import MARKER, PipelineError
from pipeline_lib.records.store import Manifest
from pipeline_lib.records.tables import (
    ANATOMY,
    COSTS,
    DIFFERENCES,
    ERRORS,
    IDENTITY,
    PROGRESS,
    SCORE_DIFFERENCES,
    SCORES,
    TRENDS,
    Column,
    frame,
    provenance,
    read,
)
from pipeline_lib.reporting.differences import differences
from pipeline_lib.reporting.score_differences import score_differences

TABLES = {
    "scores": [*IDENTITY, *SCORES],
    "score_difference": [*IDENTITY, *SCORE_DIFFERENCES],
    "cumulative_error": [*IDENTITY, *ERRORS],
    "cumulative_error_difference": [*IDENTITY, *DIFFERENCES],
    "sampling_difference": [*IDENTITY, *DIFFERENCES],
    "trends": [*IDENTITY, *TRENDS],
    "anatomy": [*IDENTITY, *ANATOMY],
    "costs": [*IDENTITY, *COSTS],
    "progress": [*IDENTITY, *PROGRESS],
}
DIFFERENCE_TABLES: dict[str, Literal["methods", "samplings"]] = {
    "cumulative_error_difference": "methods",
    "sampling_difference": "samplings",
}
CONTROLS = {"floor": "real", "ceiling": "noise", "reconstruction": "reconstructed"}
LATENT_STAGES = ("autoencoder", "latents")  # of datasets with an autoencoder
DATASET_STAGES = ("data", "classifier", "reference", "bandwidths", "controls")
SAMPLING_STAGES = ("sample", "errors", "scores")
ANALYTIC_STAGES = ("exact", "coverage", "leak", "corrections")
RECORDS = {"errors": "errors.parquet", "scores": "scores.parquet", "controls": "scores.parquet"} | {
    name: f"{name}.parquet" for name in ("progress", *ANALYTIC_STAGES)
}
# each nfe is a cell, and samples with equal constants are equal, wherever these were found
PARTIAL: dict[str, tuple[str, ...]] = {"train": (), "sample": ("nfe", *SOUGHT), "tune": ("nfe",)}
DTYPES = {"string": "string", "int64": "Int64", "float64": "float64", "bool": "boolean"}

Identity = dict[str, Any]


@dataclass(frozen=True)
class State:
    """How far a stage instance is: status done, pending or failed, a sentence, and its log ('' if there is none).

    `place` and `log` are relative to the experiment's folder.
    """

    status: str
    place: str
    sentence: str = ""
    log: str = ""

    @property
    def note(self) -> str:
        """The sentence with the log's path, for a table cell."""
        return f"{self.sentence} (log: {self.log})" if self.log else self.sentence


@dataclass(frozen=True)
class Job:
    """One stage instance of an experiment: who it belongs to, its folder, and the folders that it reads from."""

    stage: str
    identity: Identity
    place: str
    inputs: tuple[str, ...] = ()


def jobs(experiment: Mapping[str, Any]) -> Iterator[Job]:
    """Every stage instance that the experiment expects, in the order of its plan."""
    for dataset in experiment["datasets"]:
        base = tuple(f"{dataset}/{s}" for s in ("data", "classifier", "reference"))
        latent = _latent(experiment, dataset)
        inputs = {
            "autoencoder": base[:1],
            "latents": (*base[:1], *latent[:1]),
            "classifier": base[:1],
            "reference": base[:2],
            "bandwidths": (*base[:1], *latent),
            "controls": (*base, *latent[:1]),
        }
        for stage in (*(LATENT_STAGES if latent else ()), *DATASET_STAGES):
            yield Job(stage, {"dataset": dataset}, f"{dataset}/{stage}", inputs.get(stage, ()))
    for problem in experiment["analytic"]["problems"] if experiment["analytic"] else ():
        for stage in ANALYTIC_STAGES:
            yield Job(stage, {"dataset": problem}, f"analytic/{problem}/{stage}")
    for one in experiment["instances"]:
        yield from _run_jobs(experiment, one)


def _latent(experiment: Mapping[str, Any], dataset: str) -> tuple[str, ...]:
    """Folders of the autoencoder and the latents of a dataset; none where it is trained on as pixels."""
    return tuple(f"{dataset}/{s}" for s in LATENT_STAGES) if dataset in experiment.get("latent", ()) else ()


def _run_jobs(experiment: Mapping[str, Any], one: Mapping[str, Any]) -> Iterator[Job]:
    dataset, path = one["dataset"], one["path"]
    data, classifier, reference, bandwidths = (f"{dataset}/{s}" for s in DATASET_STAGES[:4])
    identity = {
        **{k: one[k] for k in ("dataset", "method", "variant", "seed")},
        "preset": experiment["methods"][one["method"]]["variants"][one["variant"]]["preset"] or "none",
    }
    train = f"{path}/train"
    latent = _latent(experiment, dataset)
    init = (f"{one['init']}/train",) if one.get("init") else ()
    yield Job("train", identity, train, (data, *latent, *init))
    for sampler in samplings_of(experiment, one["method"]):
        sample = f"{path}/{sampler}/sample"
        name = experiment["samplings"][sampler].get("guide")
        guide = (f"{dataset}/{name}/s{one['seed']}/train",) if name else ()
        moments = (f"{path}/{sampler}/moments",) if experiment["samplings"][sampler].get("moments") else ()
        for place in moments:
            yield Job("moments", {**identity, "sampler": sampler}, place, (data, *latent, train))
        searched = (data, *latent, classifier, reference, train, *guide, *moments)
        if experiment["samplings"][sampler].get("tuning"):
            yield Job("tune", {**identity, "sampler": sampler}, f"{path}/{sampler}/tune", searched)
        tuned = _tuned(experiment["samplings"][sampler], one, sampler)
        inputs = {
            "sample": (data, *latent, train, *guide, *moments, *tuned),
            "errors": (data, *latent, bandwidths, train, *guide, *moments, *tuned),
            "scores": (data, *latent, classifier, reference, train, *guide, *moments, *tuned, sample),
        }
        for stage in SAMPLING_STAGES if is_scored(experiment, sampler) else SAMPLING_STAGES[:-1]:
            yield Job(stage, {**identity, "sampler": sampler}, f"{path}/{sampler}/{stage}", inputs[stage])
        if f"{path}/{sampler}" in experiment.get("progress", ()):
            yield Job("progress", {**identity, "sampler": sampler}, f"{path}/{sampler}/progress", inputs["scores"])


def _tuned(sampling: Mapping[str, Any], one: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Folder of the tuning whose constants a sampling uses; none for most."""
    if sampling.get("tuning"):
        return (f"{one['path']}/{name}/tune",)
    if not (transfer := sampling.get("transfer")):
        return ()
    path = f"{transfer['dataset'] or one['dataset']}/{one['method']}/{one['variant']}/s{one['seed']}"
    return (f"{path}/{transfer['sampling']}/tune",)


def state(folder: Path, job: Job) -> State:
    """State of a job: failed where it or one of its inputs failed, done only where all of them are done.

    So a record of an earlier configuration does not count while the training that it comes from is made anew.
    """
    states = [own_state(folder, place) for place in (*job.inputs, job.place)]
    for status in ("failed", "pending"):
        for found in states:
            if found.status == status:
                return found
    return states[-1]


def own_state(folder: Path, place: str) -> State:
    """State of what lies in a stage's folder, whatever it was made from."""
    here = folder / place
    log = f"{place}/log.txt" if (here / "log.txt").is_file() else ""
    if (here / MARKER).is_file():
        return State("failed", place, json.loads((here / MARKER).read_text())["sentence"], log)
    if (here / RECORDS.get(here.name, "manifest.json")).is_file():
        if _is_stale(here):
            return State("pending", place, "what is there was made with another configuration", log)
        return State("done", place, "", log)
    return State("pending", place, "started, not finished" if log else "not run yet", log)


def _is_stale(here: Path) -> bool:
    """Whether a training, samples or a record were made with another configuration than the one that stands there."""
    if here.name not in PARTIAL and here.name not in RECORDS:
        return False
    try:
        wanted = json.loads((here / "config.json").read_text())["config"]
        return made_with(here) != {k: v for k, v in wanted.items() if k not in PARTIAL.get(here.name, ())}
    except (OSError, ValueError, KeyError, PipelineError):
        return False  # without both there is nothing to compare


def made_with(here: Path) -> dict[str, Any]:
    """What a stage's folder says of the configuration that its result was made with: without the keys of `PARTIAL`, or
    others that its identity lacks. Raises OSError, ValueError, KeyError or BadData where it is not kept."""
    if here.name in RECORDS:
        found: dict[str, Any] = provenance(here / RECORDS[here.name])["config"]
    else:
        stored = Path(Manifest.load(here / "manifest.json").folder) / "identity.json"
        found = json.loads(stored.read_text())["config"]
    return found


def manifest(folder: Path, place: str) -> Manifest | None:
    """The manifest in a stage folder, or None where there is none that can be read."""
    try:
        return Manifest.load(folder / place / "manifest.json")
    except PipelineError:
        return None


def first_of_each(folder: Path, found: Iterable[Job]) -> list[Job]:
    """The jobs without those whose stored result an earlier one has: cells of an experiment can share a training.

    Jobs without a manifest count each.
    """
    first: dict[str, Job] = {}
    for job in found:
        made = manifest(folder, job.place)
        first.setdefault(f"{made.stage} {made.fingerprint}" if made else job.place, job)
    return list(first.values())


def collect(folder: Path, experiment: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """All records below `folder` (results/<experiment>) as the frames of `TABLES`; what is missing never stops it.

    Rows stand in the order of the plan. `scores` has at least one row for every expected cell, and floor and ceiling
    as methods 'real' and 'noise'.
    """
    pieces: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for job in jobs(experiment):
        now = state(folder, job)
        if job.stage == "controls":
            pieces["scores"].append(_controls(folder, job, now))
        elif job.stage == "scores":
            pieces["scores"].append(_scores(folder, job, now, experiment["samplings"][job.identity["sampler"]]["nfe"]))
        elif job.stage == "errors" and now.status == "done":
            pieces["cumulative_error"].append(_record(folder, job, "errors.parquet", ERRORS))
            pieces["trends"].append(_record(folder, job, "trends.parquet", TRENDS))
            pieces["anatomy"].append(_record(folder, job, "anatomy.parquet", ANATOMY))
        elif job.stage == "progress" and now.status == "done":
            pieces["progress"].append(_record(folder, job, "progress.parquet", PROGRESS))
        pieces["costs"].append(_costs(folder, job))
    tables = {name: joined(found, TABLES[name]) for name, found in pieces.items()}
    for name, of in DIFFERENCE_TABLES.items():
        paired = pd.DataFrame(differences(folder, experiment, tables["cumulative_error"], of))
        tables[name] = joined([paired], TABLES[name])
    of_scores = pd.DataFrame(score_differences(folder, experiment, tables["scores"]))
    tables["score_difference"] = joined([of_scores], TABLES["score_difference"])
    return tables


def joined(pieces: list[pd.DataFrame], columns: Sequence[Column]) -> pd.DataFrame:
    """One frame of the declared columns, in which whole numbers stay whole where some are missing."""
    filled = [p for p in pieces if len(p)]
    rows = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    return frame(rows, columns).astype({c.name: DTYPES[c.type] for c in columns})


def _record(folder: Path, job: Job, name: str, columns: Sequence[Column]) -> pd.DataFrame:
    """A record with the identity of its job; empty where it cannot be read (the scores say so in a row)."""
    try:
        rows = read(folder / job.place / name, columns)
    except PipelineError:
        return pd.DataFrame()
    return rows[[c.name for c in columns]].assign(**job.identity)


def _scores(folder: Path, job: Job, now: State, expected: Sequence[int]) -> pd.DataFrame:
    if now.status != "done":
        return _without_score(job, now, expected)
    rows = _record(folder, job, "scores.parquet", SCORES)
    lost = [n for n in expected if rows.empty or n not in set(rows["nfe"])]
    if not lost:
        return rows
    missing = State("pending", job.place, "the record has no such cell; delete it and run again", now.log)
    return pd.concat([rows, _without_score(job, missing, lost)], ignore_index=True)


def _without_score(job: Job, now: State, expected: Sequence[int]) -> pd.DataFrame:
    rows = [{**job.identity, "nfe": n, "status": now.status, "note": now.note} for n in expected]
    return pd.DataFrame(rows)


def _controls(folder: Path, job: Job, now: State) -> pd.DataFrame:
    if now.status == "done":
        rows = _record(folder, job, "scores.parquet", SCORES)
        if len(rows):
            return rows.assign(method=rows["control"].map(CONTROLS))
        now = State("pending", job.place, "the record cannot be read; delete it and run again", now.log)
    return pd.DataFrame(
        {**job.identity, "method": CONTROLS[control], "control": control, "status": now.status, "note": now.note}
        for control in ("floor", "ceiling")
    )


def _costs(folder: Path, job: Job) -> pd.DataFrame:
    known = {c.name for c in COSTS}
    values = {k: v for k, v in costs_of(folder, job).items() if k in known}
    if not values:
        return pd.DataFrame()
    return pd.DataFrame([{"stage": job.stage, **values, **job.identity}])


def costs_of(folder: Path, job: Job) -> dict[str, Any]:
    """What a job noted of its costs; empty where it did not end."""
    path = folder / job.place / "costs.json"
    return json.loads(path.read_text()) if path.is_file() else {}
