"""The report stage: one offline HTML page of everything that an experiment has, needing nothing but itself."""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.files import write_text
from pipeline_lib.records.store import Manifest
from pipeline_lib.records.tables import SCORES, provenance
from pipeline_lib.reporting import anatomy, before_after, comparisons, relative_costs, sweeps, theory, tuning
from pipeline_lib.reporting.check import verdicts
from pipeline_lib.reporting.collect import (
    ANALYTIC_STAGES,
    DATASET_STAGES,
    RECORDS,
    SAMPLING_STAGES,
    Job,
    State,
    collect,
    jobs,
    manifest,
    state,
)
from pipeline_lib.reporting.figures import drawings, histories, of_key
from pipeline_lib.reporting.findings import interval, readings
from pipeline_lib.reporting.summaries import (
    POWER,
    RUN,
    cells,
    difference_summary,
    error_summary,
    frechet,
    label,
    main_bandwidth,
    number,
    score_summary,
    with_interval,
    with_spread,
    without_unused_control,
)

IMAGE_BYTES = 5_000_000  # of all pictures in the page: base64 makes a third more of it, and the page stays below 10 MB
LARGEST_TABLE = 1000  # rows; the CSV file has all
LARGEST_SVG = 300_000  # curves of very many points are smaller as PNG
MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
CONTENTS = {
    "scores": "every score with its protocol, floor and ceiling, and why a cell has none",
    "score_difference": "every score less that of its control, paired by image, with its interval over samples",
    "cumulative_error": "MMD² at every measured t, with its interval and the null's quantile",
    "cumulative_error_difference": "MMD² less that of the control, paired by chain, at every step and over the curve",
    "trends": "whether and how fast each curve grows, with a verdict",
    "anatomy": "exposure bias, leak test, gain of perturbations and their kin at every measured t",
    "costs": "time, memory and device of every job",
    "costs_relative": "time, memory and network calls of a training step beside those of the control",
    "tuning": "every trial of every search for constants of corrections",
    "tuned": "which constants each sampled cell uses, where they come from, and what the search cost",
    "theory": "the papers' claims, a row for each reading and chain",
    "exact": "every exact error of every chain at every step",
    "coverage": "the estimators against exact values",
    "corrections": "corrections of the sampler on short exact chains",
    "leak": "true score down to a step, an imperfect model after it",
}
PROTOCOL = [c.name for c in SCORES[SCORES.index(next(c for c in SCORES if c.name == "extractor")) :]]


@dataclass
class Pictures:
    """Pictures for the page as data URIs, until the budget is spent; later ones are only linked."""

    folder: Path
    left: int = IMAGE_BYTES

    def embed(self, path: Path) -> dict[str, str]:
        """{source, link}: source is '' for a picture that is missing or over the budget, link is '' if missing."""
        if not path.is_file():
            return {"source": "", "link": ""}
        link = os.path.relpath(path, self.folder)
        content = path.read_bytes()
        if len(content) > self.left:
            return {"source": "", "link": link}
        self.left -= len(content)
        return {"source": f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(content).decode()}", "link": link}

    def figure(self, name: str) -> dict[str, str]:
        """A drawn figure, as SVG unless that is very large."""
        svg = self.folder / "figures" / f"{name}.svg"
        small = svg.is_file() and svg.stat().st_size <= LARGEST_SVG
        return self.embed(svg if small else svg.with_suffix(".png"))

    def stored(self, made: Manifest | None, name: str) -> dict[str, str]:
        """A picture of a stored result; nothing where it is gone, or where the manifest has a hash that it lacks."""
        if made is None:
            return {"source": "", "link": ""}
        try:
            return self.embed(made.file(name) if name in made.files else Path(made.folder) / name)
        except PipelineError:
            return {"source": "", "link": ""}


@dataclass
class Table:
    """A table of the page: column names, rows of texts, and which columns are numbers."""

    columns: list[str]
    rows: list[list[str]]
    numeric: set[str] = field(default_factory=set)
    total: int = 0


def run(folder: Path, experiment: dict[str, Any]) -> None:
    """Write `report.html` in `folder`, from whatever is there."""
    environment = Environment(
        loader=PackageLoader("pipeline_lib.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(context(folder, experiment))
    write_text(folder / "report.html", page)


def context(folder: Path, experiment: dict[str, Any]) -> dict[str, Any]:
    """All that the page shows. Pictures are taken in the order of their weight, since there is a budget for them."""
    tables = collect(folder, experiment)
    states = {job.place: (job, state(folder, job)) for job in jobs(experiment)}
    pictures = Pictures(folder)
    drawn = drawings(experiment) if experiment["instances"] else []
    figures = [{"title": d.title, "name": d.name, **pictures.figure(d.name)} for d in drawn]
    regularised = pictures.figure(before_after.NAME) if before_after.pairs(experiment) else {"link": ""}
    curves = of_key(dict(histories(folder, experiment)), "loss")
    compared = [s for room in (comparisons, sweeps) for s in room.sections(folder, experiment, tables)]
    contents = CONTENTS | {s.name: s.title for s in compared}
    return {
        "experiment": experiment,
        "theory": known_answers(folder, experiment, states, pictures) if experiment["analytic"] else None,
        "methods": list(dict.fromkeys(experiment["methods"][i["method"]]["label"] for i in experiment["instances"])),
        "figures": [f for f in figures if f["link"]],
        "before_after": regularised,
        "tuning": tuned_constants(folder, experiment, tables, pictures) if tuning.has(experiment) else None,
        "training_figure": pictures.figure("training"),
        "verdicts": verdicts(tables, experiment),
        "counts": counts(states),
        "failures": failures(states),
        "dataset_states": {d: [states[f"{d}/{s}"][1] for s in DATASET_STAGES] for d in experiment["datasets"]},
        "dataset_stages": DATASET_STAGES,
        "sampling_stages": SAMPLING_STAGES,
        "run_states": [run_states(one, experiment, states) for one in experiment["instances"]],
        "scores": score_table(tables["scores"], experiment),
        "missing_scores": missing_scores(tables["scores"]),
        "comparisons": [{**vars(s), "table": table(s.shown), **pictures.figure(s.name)} for s in compared],
        "protocol": protocol(tables["scores"]),
        "readings": readings(tables, experiment) if experiment["instances"] else [],
        "bandwidth": main_bandwidth(experiment),
        "trends": trend_table(tables["trends"], experiment),
        "errors": error_table(tables["cumulative_error"]),
        "differences": table(difference_summary(tables["cumulative_error_difference"]).fillna({"note": ""})),
        "has_control": any(v["control"] for m in experiment["methods"].values() for v in m["variants"].values()),
        "power": POWER,
        "samples": samples(folder, experiment, pictures),
        "anatomy": [{"title": t, **f} for n, t in anatomy.drawings(experiment) if (f := pictures.figure(n))["link"]],
        "trainings": trainings(folder, experiment, curves),
        "costs": cost_table(tables["costs"]),
        "relative_costs": table(relative_costs.shown(relative_costs.measure(folder, experiment, tables))),
        "cost_reading": relative_costs.READING,
        "spent": spent(float(tables["costs"]["seconds"].sum())),
        "fingerprints": fingerprints(folder, states),
        "about": about(folder, states),
        "table_names": {k: v for k, v in contents.items() if (folder / "tables" / f"{k}.csv").is_file()},
        "main": drawn[0].title if drawn else "",
    }


def tuned_constants(
    folder: Path, experiment: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], pictures: Pictures
) -> dict[str, Any]:
    """The section on tuning: what each cell uses and what it cost, and the sensitivity of the score."""
    used = tuning.tables(folder, experiment, tables["scores"])[tuning.USED]
    return {"table": table(tuning.shown(used)), "note": tuning.NOTES[tuning.USED], **pictures.figure(tuning.FIGURE)}


def known_answers(
    folder: Path, experiment: Mapping[str, Any], states: Mapping[str, tuple[Job, State]], pictures: Pictures
) -> dict[str, Any]:
    """The analytic section: verdicts, coverage, bootstrap bias, leak, and the states of its jobs."""
    found = theory.records(folder, experiment)
    problems = experiment["analytic"]["problems"]
    return {
        "curves": pictures.figure("theory"),
        "leak_figure": pictures.figure("leak"),
        "corrections_figure": pictures.figure("corrections"),
        "corrections": table(theory.corrections_summary(found["corrections"])),
        "claims": table(theory.summary(found["theory"])),
        "coverage": table(theory.coverage_summary(found["coverage"])),
        "bootstrap": table(theory.bootstrap_summary(found["coverage"])),
        "leak": table(theory.leak_summary(found["leak"])),
        "states": {p: [states[f"analytic/{p}/{s}"][1] for s in ANALYTIC_STAGES] for p in problems},
    }


def counts(states: Mapping[str, tuple[Job, State]]) -> dict[str, int]:
    """How many stage instances are done, pending and failed; what waits for a failed one counts as pending."""
    kinds = [("pending" if s.status == "failed" and s.place != j.place else s.status) for j, s in states.values()]
    return {kind: kinds.count(kind) for kind in ("done", "pending", "failed")}


def failures(states: Mapping[str, tuple[Job, State]]) -> list[State]:
    """The failures themselves, without what waits for them."""
    return [s for j, s in states.values() if s.status == "failed" and s.place == j.place]


def run_states(
    one: Mapping[str, Any], experiment: Mapping[str, Any], states: Mapping[str, tuple[Job, State]]
) -> dict[str, Any]:
    """State of the training of an instance and of the stages of each sampling; None where it is not sampled so."""
    places = [f"{one['path']}/{sampler}/{s}" for sampler in experiment["samplings"] for s in SAMPLING_STAGES]
    drawn = [states[place][1] if place in states else None for place in places]
    return {
        **one,
        "label": label(experiment, one["method"], one["variant"]),
        "states": [states[f"{one['path']}/train"][1], *drawn],
    }


def table(rows: pd.DataFrame) -> Table:
    """A frame as texts at readable precision; of a very long one the beginning."""
    numeric = {c for c in rows.columns if pd.api.types.is_numeric_dtype(rows[c])}
    texts = [[number(v) for v in row] for row in rows[:LARGEST_TABLE].itertuples(index=False, name=None)]
    names = [str(c).replace("_", " ") for c in rows.columns]
    return Table(names, texts, {c.replace("_", " ") for c in numeric}, len(rows))


def score_table(scores: pd.DataFrame, experiment: Mapping[str, Any]) -> Table:
    """Frechet distances: mean and spread over seeds beside floor and ceiling; scores.md has all scores."""
    summary = score_summary(frechet(scores), experiment)
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


def error_table(errors: pd.DataFrame) -> Table:
    """One row a curve."""
    return table(error_summary(errors).drop(columns="confidence"))


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


def samples(folder: Path, experiment: Mapping[str, Any], pictures: Pictures) -> list[dict[str, Any]]:
    """Per dataset and cell, real images beside the samples of each method's first seed that has some."""
    found = []
    for dataset in experiment["datasets"]:
        real = pictures.stored(manifest(folder, f"{dataset}/data"), "grid.png")
        for sampler, nfe in cells(experiment):
            drawn = list(_drawn(folder, experiment, dataset, sampler, nfe, pictures))
            if drawn:
                found.append({"dataset": dataset, "sampler": sampler, "nfe": nfe, "real": real, "drawn": drawn})
    return found


def _drawn(
    folder: Path, experiment: Mapping[str, Any], dataset: str, sampler: str, nfe: int, pictures: Pictures
) -> Iterator[dict[str, Any]]:
    shown = set()
    for one in experiment["instances"]:
        who = (one["method"], one["variant"])
        if one["dataset"] != dataset or who in shown or sampler not in samplings_of(experiment, one["method"]):
            continue
        made = manifest(folder, f"{one['path']}/{sampler}/sample")
        grid = next((c["grid"] for c in made.facts["cells"] if c["nfe"] == nfe), None) if made else None
        if grid is None:
            continue
        shown.add(who)
        yield {"label": label(experiment, *who), "seed": one["seed"], **pictures.stored(made, grid)}


def trainings(
    folder: Path, experiment: Mapping[str, Any], curves: Mapping[tuple[str, str, str, int], pd.DataFrame]
) -> list[dict[str, Any]]:
    """Every finished training: steps, images, last loss and a small curve of it."""
    found = []
    for one in experiment["instances"]:
        curve = curves.get((one["dataset"], one["method"], one["variant"], one["seed"]))
        if curve is None:
            continue
        made = manifest(folder, f"{one['path']}/train")
        last = curve.iloc[-1]
        found.append(
            {
                **one,
                "label": label(experiment, one["method"], one["variant"]),
                "steps": f"{int(last['step']):,}",
                "images": f"{int(last['images']):,}",
                "parameters": f"{made.facts['parameters']:,}" if made and "parameters" in made.facts else "",
                "loss": number(float(last["value"])),
                "points": sparkline(curve["value"].tolist()),
            }
        )
    return found


def sparkline(values: Sequence[float], width: int = 120, height: int = 24) -> str:
    """`points` of an SVG polyline of the values, at most one a pixel, on a log scale unless some are not positive."""
    chosen = [values[round(i)] for i in _even(len(values), min(len(values), width))]
    if min(chosen) > 0:
        chosen = [log(v) for v in chosen]
    low, high = min(chosen), max(chosen)
    scale = (height - 2) / ((high - low) or 1)
    step = width / max(1, len(chosen) - 1)
    return " ".join(f"{i * step:.1f},{height - 1 - (v - low) * scale:.1f}" for i, v in enumerate(chosen))


def _even(total: int, count: int) -> list[float]:
    return [i * (total - 1) / max(1, count - 1) for i in range(count)]


def cost_table(costs: pd.DataFrame) -> Table:
    """The costs without columns that are empty throughout."""
    kept = costs.drop(columns=["preset", "host"])
    return table(kept.dropna(axis="columns", how="all") if len(kept) else kept)


def spent(seconds: float) -> tuple[str, str]:
    """A duration as a number and its unit."""
    unit, name = next((u, n) for u, n in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if seconds >= u or u == 1)
    return f"{seconds / unit:,.1f}", name


def fingerprints(folder: Path, states: Mapping[str, tuple[Job, State]]) -> Table:
    """Fingerprint and content hash of every stored result."""
    found = [(place, manifest(folder, place)) for place in states]
    rows = [[place, made.fingerprint[:16], made.content[:16], made.folder] for place, made in found if made]
    return Table(["result", "fingerprint", "content", "stored in"], rows)


def about(folder: Path, states: Mapping[str, tuple[Job, State]]) -> list[tuple[str, str]]:
    """The data's content hashes, and the versions of the software that made the records (all that occur)."""
    found: dict[str, dict[str, None]] = {}
    for place, (job, now) in states.items():
        if job.stage not in RECORDS or now.status != "done":
            continue
        try:
            values = provenance(folder / place / RECORDS[job.stage])
        except (OSError, ValueError):
            continue
        for name, version in values.get("versions", {}).items():
            found.setdefault(name, {})[version] = None
    places = [job.place for job, _ in states.values() if job.stage == "data"]
    data = [(f"content of {place}", made.content) for place in places if (made := manifest(folder, place))]
    return [*data, *((name, ", ".join(versions)) for name, versions in sorted(found.items()))]
