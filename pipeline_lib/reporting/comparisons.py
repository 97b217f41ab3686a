"""Tables that compare methods: score, paired difference from the control, published score with its verdict, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from pipeline_lib.records.files import write_text
from pipeline_lib.records.published import ROWS, Protocol
from pipeline_lib.records.tables import COMPARISON, Column, write
from pipeline_lib.reporting.collect import jobs, joined, manifest, state
from pipeline_lib.reporting.published import number_of, verdict
from pipeline_lib.reporting.summaries import RUN, cells, done_scores, label, markdown, number

CONFIDENCE = 0.95
READING = (
    "Mean ± standard deviation over seeds. Difference: to the control, paired by seed, with its 95 % t-interval; "
    "intervals are not widened for the number of rows. Seconds a step: wall time of the training job over its "
    "optimiser steps."
)
VERDICTS = (
    "Verdict: against a published score only where dataset, split, extractor, samples, sampler and network calls agree "
    "and the score was read in a source; it is undecided unless the whole 95 % interval of the mean over seeds lies "
    "within 4 % of the published score, or outside."
)
SHARED = ("dataset", "preset", "sampler", "nfe", "metric", "seeds", "control")
Tables = Mapping[str, pd.DataFrame]
Who = tuple[str, str, str]  # dataset, method, variant


@dataclass(frozen=True)
class Section:
    """A comparison or sweep: what a reader must know, its rows as they are stored, and as they are shown.

    `reading` says how all such tables are read, `notes` is about this one.
    """

    name: str
    title: str
    reading: list[str]
    notes: list[str]
    rows: pd.DataFrame
    shown: pd.DataFrame
    caption: str = ""  # of its figure, if it has one


@dataclass(frozen=True)
class Cell:
    """Where scores are compared."""

    dataset: str
    sampler: str
    nfe: int
    metric: str


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences with its t-interval; `low` and `high` are NaN with fewer than two pairs."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def half_width(self) -> float:
        """The smallest difference that so many pairs could have shown."""
        return (self.high - self.low) / 2


def paired(values: pd.Series[float], control: pd.Series[float]) -> Interval:
    """Differences of two series over the seeds (their index) that both have, whatever their order."""
    found = (values - control.reindex(values.index)).dropna()
    mean, half = float(found.mean()), half_width(found)
    return Interval(mean, mean - half, mean + half, len(found))


def half_width(values: pd.Series[float]) -> float:
    """Half the 95 % t-interval of a mean; NaN with fewer than two values."""
    if len(values) < 2:
        return nan
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std() / sqrt(len(values)))


def sections(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> list[Section]:
    """Every comparison of the experiment, from its collected `tables`."""
    found = []
    for name, one in experiment["comparisons"].items():
        rows = compare(folder, experiment, tables, one["rows"])
        reading = [READING, VERDICTS] if rows["verdict"].notna().any() else [READING]
        constant, table = without_constants(shown(rows, experiment))
        found.append(Section(name, one["title"], reading, notes(one, rows, experiment, constant), rows, table))
    return found


def write_tables(folder: Path, found: Sequence[Section], columns: Sequence[Column], experiment: str) -> None:
    """Write `tables/<name>.{parquet,csv,md}` of every section."""
    for one in found:
        target = folder / "tables" / one.name
        write(target.with_suffix(".parquet"), one.rows, columns, {"experiment": experiment})
        write_text(target.with_suffix(".csv"), one.rows.to_csv(index=False))
        text = "\n\n".join([f"# {one.title}", *one.notes, *one.reading, markdown(one.shown)])
        write_text(target.with_suffix(".md"), text)


def compare(
    folder: Path, experiment: Mapping[str, Any], tables: Tables, pairs: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """Rows of `COMPARISON`: for each dataset and cell, the given (method, variant) in order, under every metric."""
    scores = Scores(tables["scores"])
    trained = trainings(folder, experiment, tables["costs"])
    rows: list[dict[str, Any]] = []
    for dataset in experiment["datasets"]:
        for sampler, nfe in cells(experiment):
            for metric in scores.metrics(dataset):
                rows += _rows(experiment, scores, trained, pairs, Cell(dataset, sampler, nfe, metric))
    return joined([pd.DataFrame(rows)], COMPARISON)


class Scores:
    """Collected scores, found by cell and run."""

    def __init__(self, scores: pd.DataFrame) -> None:
        self._metrics = scores.groupby("dataset")["metric"].unique()
        self._rows = dict(iter(scores.groupby(RUN, sort=False)))
        done = done_scores(scores).groupby([*RUN, "metric"], sort=False)
        self._values = {key: group.groupby("seed")["value"].mean() for key, group in done}

    def metrics(self, dataset: str) -> list[str]:
        """The metrics of a dataset; one without a name where none is known yet."""
        known = self._metrics.get(dataset, ())
        return [m for m in known if pd.notna(m)] or [""]

    def rows(self, cell: Cell, method: str, variant: str) -> pd.DataFrame:
        """Every row of a run in a cell, of any metric and status."""
        return self._rows[cell.dataset, method, variant, cell.sampler, cell.nfe]

    def values(self, cell: Cell, method: str, variant: str) -> pd.Series[float]:
        """The scores of a run, indexed by seed; empty where it has none."""
        key = (cell.dataset, method, variant, cell.sampler, cell.nfe, cell.metric)
        return self._values.get(key, pd.Series(dtype=float))


def _rows(
    experiment: Mapping[str, Any],
    scores: Scores,
    trained: Mapping[Who, pd.DataFrame],
    pairs: Sequence[Sequence[str]],
    cell: Cell,
) -> Iterator[dict[str, Any]]:
    for method, variant in pairs:
        who = (cell.dataset, method, variant)
        seeds = [i["seed"] for i in experiment["instances"] if _who(i) == who]
        if not seeds:
            continue
        about = experiment["methods"][method]["variants"][variant]
        mine, values = scores.rows(cell, method, variant), scores.values(cell, method, variant)
        control = about["control"]
        other = scores.values(cell, *control.split("/")) if control else None
        yield {
            **vars(cell),
            "method": method,
            "label": label(experiment, method, variant),
            "variant": variant,
            "preset": about["preset"] or "none",
            "mean": values.mean(),
            "sd": values.std(),
            "seeds": len(values),
            "control": control or "",
            **_difference(values, other),
            **_published(experiment, about["published"], mine, cell, values),
            **_costs(trained, who, control),
            "note": "; ".join(_remarks(mine, cell.metric, seeds, values, other)),
        }


def _who(one: Mapping[str, Any]) -> Who:
    return one["dataset"], one["method"], one["variant"]


def _difference(values: pd.Series[float], control: pd.Series[float] | None) -> dict[str, Any]:
    if control is None:
        return {}
    found = paired(values, control)
    ends = {"low": found.low, "high": found.high, "detectable": found.half_width}
    return {"difference": found.mean, "pairs": found.pairs, **ends}


def _published(
    experiment: Mapping[str, Any],
    key: str | None,
    mine: pd.DataFrame,
    cell: Cell,
    values: pd.Series[float],
) -> dict[str, Any]:
    """The published number for this dataset, and the verdict where there is a score."""
    if key is None:
        return {}
    recipe = experiment["recipes"][cell.dataset]
    theirs, first = number_of(key, recipe), ROWS[key][0]
    found = {
        "published": theirs.value if theirs else None,
        "elsewhere": ", ".join(f"{p.dataset} {p.value:g}" for p in ROWS[key]),
        "tag": first.tag,
        "source": f"{first.paper}, {first.table}, {first.label}",
    }
    if values.empty:
        return found
    done = done_scores(mine)
    row = {k: v for k, v in done[done["metric"].eq(cell.metric)].iloc[0].items() if pd.notna(v)}
    measured = Protocol(
        recipe=recipe,
        split=row.get("reference_split"),
        reference_images=row.get("reference_images"),
        extractor=row.get("extractor"),
        samples=row.get("samples"),
        sampler=experiment["samplings"][cell.sampler]["sampler"]["name"],
        nfe=cell.nfe,
    )
    return {**found, "verdict": verdict(key, measured, values.mean(), half_width(values))}


def trainings(folder: Path, experiment: Mapping[str, Any], costs: pd.DataFrame) -> dict[Who, pd.DataFrame]:
    """(dataset, method, variant) -> steps, seconds, images and device of its finished trainings, a row each."""
    names = ["dataset", "method", "variant", "seed"]
    known = costs[costs["stage"].eq("train")].set_index(names)
    found: dict[Who, list[dict[str, Any]]] = {}
    for job in jobs(experiment):
        key = tuple(job.identity.get(k) for k in names)
        if job.stage != "train" or key not in known.index or state(folder, job).status != "done":
            continue
        made = manifest(folder, job.place)
        if made and made.facts.get("steps"):
            row = {"steps": made.facts["steps"], **{k: known.at[key, k] for k in ("seconds", "images", "device")}}
            found.setdefault(_who(job.identity), []).append(row)
    return {who: pd.DataFrame(rows) for who, rows in found.items()}


def _costs(trained: Mapping[Who, pd.DataFrame], who: Who, control: str | None) -> dict[str, Any]:
    """Means over seeds; images at equal time only where both were trained on the same kind of device."""
    mine = trained.get(who)
    if mine is None:
        return {}
    found = {
        "steps": mine["steps"].mean(),
        "images": mine["images"].mean(),
        "step_seconds": (mine["seconds"] / mine["steps"]).mean(),
        "device": ", ".join(sorted(set(mine["device"]))),
    }
    other = trained.get((who[0], *control.split("/"))) if control else None  # type: ignore[arg-type]
    if other is not None and set(other["device"]) == set(mine["device"]):
        found["images_in_control_time"] = (mine["images"] / mine["seconds"]).mean() * other["seconds"].mean()
    return found


def _remarks(
    mine: pd.DataFrame,
    metric: str,
    seeds: Sequence[int],
    values: pd.Series[float],
    control: pd.Series[float] | None,
) -> Iterator[str]:
    """Why seeds have no score, few seeds, and a control that has none."""
    reasons: dict[str, list[str]] = {}
    for seed in seeds:
        if seed not in values.index:
            rows = mine[mine["seed"].eq(seed) & mine["status"].ne("done")]
            rows = rows[rows["metric"].isna() | rows["metric"].eq(metric)]
            why = f"{rows['status'].iloc[0]}, {rows['note'].iloc[0]}" if len(rows) else "no such score"
            reasons.setdefault(why, []).append(str(seed))
    for why, lost in reasons.items():
        yield f"seed {', '.join(lost)}: {why}"
    if len(values) == 1:
        yield "one seed"
    if control is not None and len(values) and len(values.index.intersection(control.index)) == 0:
        yield "the control has no score for these seeds"


def notes(one: Mapping[str, Any], rows: pd.DataFrame, experiment: Mapping[str, Any], constant: str) -> list[str]:
    """The table's own note, what all its rows share, and the smallest differences that its seeds could have shown."""
    return [n for n in (one["note"], constant, detectable_note(rows, experiment)) if n]


def detectable_note(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> str:
    """The half-widths of the paired intervals in the main cell, for each dataset and metric."""
    sampler, nfe = cells(experiment)[0]
    main = rows[rows["sampler"].eq(sampler) & rows["nfe"].eq(nfe) & rows["control"].ne("")]
    if main.empty:
        return ""
    found = main[main["detectable"].notna()]
    if found.empty:
        return "No method shares two seeds with its control, so no difference can be told from chance."
    texts = []
    for (dataset, metric), group in found.groupby(["dataset", "metric"], sort=False):
        ends = dict.fromkeys(number(float(v)) for v in (group["detectable"].min(), group["detectable"].max()))
        counts = dict.fromkeys(str(n) for n in (group["pairs"].min(), group["pairs"].max()))
        texts.append(f"{' to '.join(ends)} in {metric} on {dataset} ({' to '.join(counts)} paired seeds)")
    return (
        "Half the width of the paired interval, below which a difference cannot be told from zero here, with "
        f"{sampler} at {nfe} network calls: {'; '.join(texts)}."
    )


def shown(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """The rows for a reader: numbers with their spread in one cell, and no column that is empty throughout."""
    texts = pd.DataFrame(
        {
            "dataset": rows["dataset"],
            "method": rows["label"],
            "preset": rows["preset"],
            "sampler": rows["sampler"],
            "nfe": rows["nfe"],
            "metric": rows["metric"],
            "score": [with_spread(r.mean, r.sd) for r in each(rows)],
            "seeds": rows["seeds"],
            "control": [_control(experiment, c) for c in rows["control"]],
            "difference": [with_interval(r.difference, r.low, r.high) for r in each(rows)],
            "detectable": rows["detectable"],
            "published": [_published_text(r) for r in each(rows)],
            "verdict": rows["verdict"].fillna(""),
            "seconds a step": rows["step_seconds"],
            "images in control's time": rows["images_in_control_time"],
            "note": rows["note"],
        }
    )
    return texts.drop(columns=[c for c in texts if len(texts) and texts[c].replace("", pd.NA).isna().all()])


def without_constants(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """What stands in all rows of a shown table as a sentence, and the table without these columns."""
    same = [c for c in SHARED if c in table and len(table) > 1 and table[c].nunique(dropna=False) == 1]
    texts = [f"{name} {number(table[name].iloc[0])}" for name in same]
    return f"In all rows: {', '.join(texts)}." if texts else "", table.drop(columns=same)


def _published_text(row: Any) -> str:
    if pd.isna(row.tag):
        return ""
    return f"{row.elsewhere if pd.isna(row.published) else number(row.published)} [{row.tag}]"


def each(rows: pd.DataFrame) -> Iterator[Any]:
    """The rows with their columns as attributes."""
    yield from rows.itertuples(index=False, name="Row")


def _control(experiment: Mapping[str, Any], control: str) -> str:
    method, _, variant = control.partition("/")
    return label(experiment, method, variant) if control else ""


def with_spread(mean: float, sd: float) -> str:
    """'4.2 ± 0.11', without the spread where there is none."""
    return f"{number(mean)} ± {sd:.2g}" if pd.notna(sd) else number(mean)


def with_interval(mean: float, low: float, high: float) -> str:
    """'-0.12 [-0.2, -0.04]', without the interval where there is none."""
    return f"{number(mean)} [{low:.3g}, {high:.3g}]" if pd.notna(low) else number(mean)
