"""Tables that compare methods: score, paired difference from the control, published score with its verdict, costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.sampled import scored_samplings
from pipeline_lib.records.costs import crowded
from pipeline_lib.records.files import write_text
from pipeline_lib.records.published import ROWS, Protocol
from pipeline_lib.records.tables import COMPARISON, Column, write
from pipeline_lib.reporting.collect import jobs, joined, manifest, state
from pipeline_lib.reporting.intervals import half_width, half_widths, paired
from pipeline_lib.reporting.published import number_of, numbers, verdict
from pipeline_lib.reporting.summaries import (
    RUN,
    cells,
    done_scores,
    frechet,
    label,
    markdown,
    number,
    seed_values,
    with_interval,
    with_intervals,
    with_spread,
)

READING = (
    "Mean ± standard deviation over seeds; of a single seed the 95 % interval over samples, which says nothing of "
    "other trainings. Difference: to the control, paired by seed, with its 95 % t-interval, and after 'samples' the "
    "interval over samples, paired by image, of these trained networks, which does not speak of other seeds; intervals "
    "are not widened for the number of rows. Seconds a step: the median of a training; wall time also counts the "
    "neighbours on the machine, CPU time (all threads, not given for a GPU) hardly does. Memory: the largest over "
    "seeds, of tensors on a GPU, and on a CPU of the whole process, interpreter, libraries and data included. Images "
    "in control's time: what the method would have processed in the wall time of its control's training, at the speed "
    "of its own, over the seeds that both have."
)
VERDICTS = (
    "Verdict: against a published score only where dataset, split, extractor, samples, sampler and network calls agree "
    "and the score was read in a source; it is undecided unless the whole 95 % interval of the mean, over seeds "
    "or over samples, whichever is wider, lies within 4 % of the published score, or outside."
)
SHARED = ("dataset", "preset", "sampler", "nfe", "metric", "seeds", "control", "verdict")
COST_COLUMNS = ("seconds a step", "CPU seconds a step", "memory (MB)", "images in control's time")
TAGS = "In brackets: found, read in its source; memory, recollected and never checked, and how sure it is."
TRAININGS = "What the trainings cost"
CHARGED = ("steps", "images", "seconds")  # a training that starts from another's weights pays for that one too
Tables = Mapping[str, pd.DataFrame]
Who = tuple[str, str, str]  # dataset, method, variant


@dataclass(frozen=True)
class Section:
    """A comparison or sweep: what a reader must know, its rows as they are stored, and as they are shown.

    `reading` says how all such tables are read, `notes` is about this one, `beneath` is what is said below it.
    """

    name: str
    title: str
    reading: list[str]
    notes: list[str]
    rows: pd.DataFrame
    shown: pd.DataFrame
    beneath: list[str]
    caption: str = ""  # of its figure, if it has one
    trainings: pd.DataFrame = field(default_factory=pd.DataFrame)  # what would stand in many rows: a row for each run


@dataclass(frozen=True)
class Cell:
    """Where scores are compared."""

    dataset: str
    sampler: str
    nfe: int
    metric: str


def sections(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> list[Section]:
    """Every comparison of the experiment, from its collected `tables`."""
    found = []
    for name, one in experiment["comparisons"].items():
        rows = compare(folder, experiment, tables, one["rows"])
        reading = [READING, VERDICTS] if rows["verdict"].notna().any() else [READING]
        found.append(section(name, one, rows, experiment, tables, reading))
    return found


def section(
    name: str,
    one: Mapping[str, Any],
    rows: pd.DataFrame,
    experiment: Mapping[str, Any],
    tables: Tables,
    reading: list[str],
    axes: Mapping[str, str] | None = None,
    caption: str = "",
) -> Section:
    """A comparison, or a sweep with its `axes` (column of the shown table -> column of `rows`)."""
    lost = unscored(rows, tables["scores"])
    there = rows[[(d, m) not in lost for d, m in zip(rows["dataset"], rows["metric"], strict=True)]]
    whole = shown(there, experiment)
    places = pd.DataFrame({k: there[v] for k, v in (axes or {}).items()})
    constant, table = without_constants(whole)
    costs = [c for c in COST_COLUMNS if c in table]
    first = ~there.duplicated(["dataset", "method", "variant"])
    trained = pd.DataFrame()
    if costs and not first.all():  # a training has many cells
        who = [c for c in ("dataset", "method", "preset") if c in table]
        trained, table = pd.concat([places, table[[*who, *costs]]], axis=1)[first], table.drop(columns=costs)
    readable = pd.concat([places, table], axis=1)
    beneath = [f"{metric} on {dataset}: {why}" for (dataset, metric), why in lost.items()] + one["differences"]
    about = notes(one, rows, experiment, constant)
    beneath = [*elsewhere(there), *beneath]
    return Section(name, one["title"], reading, about, rows, readable, beneath, caption, trained)


def unscored(rows: pd.DataFrame, scores: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(dataset, metric) -> why, of what no row has, for one reason, while rows have another metric."""
    runs = set(zip(rows["dataset"], rows["method"], rows["variant"], strict=True))
    mine = scores[[who in runs for who in zip(scores["dataset"], scores["method"], scores["variant"], strict=True)]]
    found = {}
    for key, group in rows.groupby(["dataset", "metric"], sort=False):
        dataset, metric = map(str, key)
        here = mine[mine["dataset"].eq(dataset) & (mine["metric"].eq(metric) | mine["metric"].isna())]
        why = set(zip(here["status"], here["note"], strict=True))
        others = set(rows.loc[rows["dataset"].eq(dataset), "metric"]) - {metric}
        if others and group["mean"].isna().all() and here["metric"].notna().all() and len(why) == 1:
            found[dataset, metric] = ", ".join(why.pop())
    return found


def write_tables(folder: Path, found: Sequence[Section], columns: Sequence[Column], experiment: str) -> None:
    """Write `tables/<name>.{parquet,csv,md}` of every section."""
    for one in found:
        target = folder / "tables" / one.name
        write(target.with_suffix(".parquet"), one.rows, columns, {"experiment": experiment})
        write_text(target.with_suffix(".csv"), one.rows.to_csv(index=False))
        costs = [f"## {TRAININGS}", markdown(one.trainings)] if len(one.trainings) else []
        text = "\n\n".join([f"# {one.title}", *one.notes, *one.reading, markdown(one.shown), *one.beneath, *costs])
        write_text(target.with_suffix(".md"), text)


def compare(
    folder: Path, experiment: Mapping[str, Any], tables: Tables, pairs: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """Rows of `COMPARISON`: for each dataset and cell, the given (method, variant) in order, under every metric."""
    scores, over_samples = Scores(tables["scores"]), sample_differences(tables, "method")
    trained = trainings(folder, experiment, tables["costs"])
    costs = cache(partial(_costs, trained))  # of a run, which are the same in all its cells
    rows: list[dict[str, Any]] = []
    for dataset in experiment["datasets"]:
        for sampler, nfe in cells(experiment):
            for metric in scores.metrics(dataset):
                cell = Cell(dataset, sampler, nfe, metric)
                rows += _rows(experiment, scores, over_samples, trained, costs, pairs, cell)
    return joined([pd.DataFrame(rows)], COMPARISON)


class Scores:
    """Collected Frechet distances, found by cell and run."""

    def __init__(self, scores: pd.DataFrame) -> None:
        scores = frechet(scores)
        self._metrics = scores.groupby("dataset")["metric"].unique()
        self._rows, self._none = dict(iter(scores.groupby(RUN, sort=False))), scores.iloc[:0]
        self._values = seed_values(done_scores(scores))

    def metrics(self, dataset: str) -> list[str]:
        """The metrics of a dataset; one without a name where none is known yet."""
        known = self._metrics.get(dataset, ())
        return [m for m in known if pd.notna(m)] or [""]

    def rows(self, cell: Cell, method: str, variant: str) -> pd.DataFrame:
        """Every row of a run in a cell, of any metric and status; none where the sampling is not scored."""
        return self._rows.get((cell.dataset, method, variant, cell.sampler, cell.nfe), self._none)

    def values(self, cell: Cell, method: str, variant: str) -> pd.Series[float]:
        """The scores of a run, indexed by seed; empty where it has none."""
        key = (cell.dataset, method, variant, cell.sampler, cell.nfe, cell.metric)
        return self._values.get(key, pd.Series(dtype=float))


def _rows(
    experiment: Mapping[str, Any],
    scores: Scores,
    over_samples: Mapping[Any, Any],
    trained: Mapping[Who, pd.DataFrame],
    costs: Callable[[Who, str | None], dict[str, Any]],
    pairs: Sequence[Sequence[str]],
    cell: Cell,
) -> Iterator[dict[str, Any]]:
    for method, variant in pairs:
        who = (cell.dataset, method, variant)
        seeds = [i["seed"] for i in experiment["instances"] if _who(i) == who]
        if not seeds or cell.sampler not in scored_samplings(experiment, method):
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
            **_over_samples(mine, cell.metric, values),
            "seeds": len(values),
            "control": control or "",
            **difference(values, other, over_samples.get((*who, cell.sampler, cell.nfe, cell.metric))),
            **published(experiment, cell, method, variant, mine, values),
            **costs(who, control),
            "note": "; ".join(
                [
                    *remarks(mine, cell.metric, seeds, values),
                    *_unpaired(experiment, cell, control, values, other),
                    *_start(experiment, trained, who),
                ]
            ),
        }


def _who(one: Mapping[str, Any]) -> Who:
    return one["dataset"], one["method"], one["variant"]


def _over_samples(mine: pd.DataFrame, metric: str, values: pd.Series[float]) -> dict[str, Any]:
    """The interval over samples, where a single seed leaves no spread over trainings."""
    if len(values) != 1:
        return {}
    row = mine[mine["metric"].eq(metric) & mine["seed"].eq(values.index[0])].iloc[0]
    return {"sample_low": row["low"], "sample_high": row["high"]}


def sample_differences(tables: Tables, of: str) -> dict[Any, Any]:
    """(dataset, method, variant, sampler, nfe, metric) -> the mean over seeds of the differences paired by image."""
    rows = tables["score_difference"]
    found = each(rows[rows["of"].eq(of) & rows["seed"].isna()])
    return {tuple(getattr(row, name) for name in (*RUN, "metric")): row for row in found}


def difference(values: pd.Series[float], control: pd.Series[float] | None, over_samples: Any) -> dict[str, Any]:
    """Paired by seed; with the interval over samples where all these seeds are paired by image, too.

    `half_width` is that of the wider one: seeds share the noise of their samples, which the t-interval does not show.
    """
    if control is None:
        return {}
    found = paired(values, control)
    ends = {"low": found.low, "high": found.high, "half_width": found.half_width}
    if over_samples is not None and over_samples.seeds == found.pairs:
        low, high = over_samples.low, over_samples.high
        ends |= {"difference_sample_low": low, "difference_sample_high": high}
        if found.pairs > 1:
            ends |= {"half_width": max(found.half_width, (high - low) / 2)}
    return {"difference": found.mean, "pairs": found.pairs, **ends}


def published(
    experiment: Mapping[str, Any],
    cell: Cell,
    method: str,
    variant: str,
    mine: pd.DataFrame,
    values: pd.Series[float],
) -> dict[str, Any]:
    """The published number for this dataset, and the verdict where there is a score.

    It is of the row that the sampling names for the run, or, in the first scored sampling of a method, of that of the
    variant.
    """
    is_main = cell.sampler in scored_samplings(experiment, method)[:1]
    row = experiment["methods"][method]["variants"][variant]["published"] if is_main else None
    key = experiment["samplings"][cell.sampler]["published"].get(f"{method}/{variant}", row)
    if key is None:
        return {}
    recipe = experiment["recipes"][cell.dataset]
    theirs, first = number_of(key, recipe, cell.nfe), ROWS[key][0]
    found = {
        "published": theirs.value if theirs else None,
        "elsewhere": ", ".join(f"{p.dataset} FID {p.value:g}" for p in numbers(key, cell.nfe)),
        "tag": theirs.tag if theirs else first.tag,
        "source": f"{first.paper}, {first.table}, {first.label}",
    }
    if values.empty:
        return found
    done = done_scores(mine)
    scored = {k: v for k, v in done[done["metric"].eq(cell.metric)].iloc[0].items() if pd.notna(v)}
    measured = Protocol(
        recipe=recipe,
        split=scored.get("reference_split"),
        reference_images=scored.get("reference_images"),
        extractor=scored.get("extractor"),
        samples=scored.get("samples"),
        sampler=experiment["samplings"][cell.sampler]["sampler"]["name"],
        nfe=cell.nfe,
    )
    half = max(half_width(values), _half_over_samples(done, cell.metric)) if len(values) > 1 else nan
    return {**found, "verdict": verdict(key, measured, values.mean(), half)}


def _half_over_samples(done: pd.DataFrame, metric: str) -> float:
    """Half the interval over samples of a mean over seeds, as wide as if they shared all the noise of their samples."""
    mine = done[done["metric"].eq(metric)]
    return float(((mine["high"] - mine["low"]) / 2).fillna(0).mean())


def trainings(folder: Path, experiment: Mapping[str, Any], costs: pd.DataFrame) -> dict[Who, pd.DataFrame]:
    """(dataset, method, variant) -> what its finished trainings cost, a row for each seed (the index).

    What `CHARGED` names includes the training that one starts from; `before` are the steps of that.
    """
    names = ["dataset", "method", "variant", "seed"]
    known: dict[Any, Any] = costs[costs["stage"].eq("train")].set_index(names).to_dict("index")
    alone: dict[str, dict[str, Any]] = {}
    for job in jobs(experiment):
        key = tuple(job.identity.get(k) for k in names)
        if job.stage != "train" or key not in known or state(folder, job).status != "done":
            continue
        made = manifest(folder, job.place)
        if made and made.facts.get("steps"):
            alone[job.place.removesuffix("/train")] = {**known[key], "steps": made.facts["steps"], "before": 0}
    starts = {i["path"]: i["init"] for i in experiment["instances"]}
    found: dict[Who, dict[int, Mapping[str, Any]]] = {}
    for one in experiment["instances"]:
        if one["path"] in alone:
            found.setdefault(_who(one), {})[one["seed"]] = _charged(one["path"], alone, starts)
    return {who: pd.DataFrame(list(rows.values()), index=list(rows)) for who, rows in found.items()}


def _charged(path: str, alone: Mapping[str, Mapping[str, Any]], starts: Mapping[str, str | None]) -> Mapping[str, Any]:
    """A training's costs with those of what it starts from, however far back."""
    mine, start = alone[path], starts[path]
    if start is None or start not in alone:
        return mine
    before = _charged(start, alone, starts)
    return {**mine, **{k: mine[k] + before[k] for k in CHARGED}, "before": before["steps"]}


def _costs(trained: Mapping[Who, pd.DataFrame], who: Who, control: str | None) -> dict[str, Any]:
    """Means over seeds; images at equal time only where both were trained on the same kind of device, alone."""
    mine = trained.get(who)
    if mine is None:
        return {}
    on_cpu = mine["device"].eq("cpu").all()
    found = {
        "steps": mine["steps"].mean(),
        "images": mine["images"].mean(),
        "step_seconds": mine["step_seconds"].mean(),
        "step_seconds_sd": mine["step_seconds"].std(),
        "peak_memory_mb": mine["peak_memory_mb" if on_cpu else "peak_gpu_memory_mb"].max(),
        "device": ", ".join(sorted(set(mine["device"]))),
    }
    if on_cpu:
        found |= {"step_cpu_seconds": mine["step_cpu_seconds"].mean()}
        found |= {"step_cpu_seconds_sd": mine["step_cpu_seconds"].std()}
    other = trained.get((who[0], *control.split("/"))) if control else None  # type: ignore[arg-type]
    if other is not None and set(other["device"]) == set(mine["device"]) and not any(map(crowded, mine["device"])):
        found["images_in_control_time"] = _images_in_time(mine, other)
    return found


def _images_in_time(mine: pd.DataFrame, control: pd.DataFrame) -> float:
    """Images of a training at the speed of `mine` that is as long as the mean one of `control`, over common seeds."""
    common = mine.index.intersection(control.index)
    spent = mine.loc[common, "seconds"].sum()
    speed = mine.loc[common, "images"].sum() / spent if spent else float("nan")
    return float(speed * control.loc[common, "seconds"].mean())


def _start(experiment: Mapping[str, Any], trained: Mapping[Who, pd.DataFrame], who: Who) -> Iterator[str]:
    """Whose weights a run starts from, and that its costs count that training."""
    start = next(i["init"] for i in experiment["instances"] if _who(i) == who)
    if start:
        _, method, variant, _ = start.split("/")
        steps = (
            f", which had {trained[who]['before'].max():,.0f} steps (they count as its own)" if who in trained else ""
        )
        yield f"starts from {method}/{variant}{steps}"


def _unpaired(
    experiment: Mapping[str, Any],
    cell: Cell,
    control: str | None,
    values: pd.Series[float],
    other: pd.Series[float] | None,
) -> Iterator[str]:
    """Why there is no difference to the control."""
    if control is None or other is None:
        return
    if cell.sampler not in scored_samplings(experiment, control.partition("/")[0]):
        yield "the control is not sampled in this way"
    elif len(values) and len(values.index.intersection(other.index)) == 0:
        yield "the control has no score for these seeds"


def remarks(mine: pd.DataFrame, metric: str, seeds: Sequence[int], values: pd.Series[float]) -> Iterator[str]:
    """Why seeds have no score, and few seeds."""
    reasons: dict[str, list[str]] = {}
    lost = [seed for seed in seeds if seed not in values.index]
    known: dict[Any, str] = {}
    for seed, status, name, note in zip(*(mine[c] for c in ("seed", "status", "metric", "note") if lost), strict=True):
        if status != "done" and (pd.isna(name) or name == metric):
            known.setdefault(seed, f"{status}, {note}")
    for seed in lost:
        reasons.setdefault(known.get(seed, "no such score"), []).append(str(seed))
    for why, whose in reasons.items():
        yield f"seed {', '.join(whose)}: {why}"
    if len(values) == 1:
        yield "one seed"


def notes(one: Mapping[str, Any], rows: pd.DataFrame, experiment: Mapping[str, Any], constant: str) -> list[str]:
    """The table's own note, what all its rows share, and the half-widths of its intervals."""
    return [n for n in (one["note"], constant, half_width_note(rows, experiment)) if n]


def _main_cell(experiment: Mapping[str, Any], method: str) -> tuple[str, int]:
    """The first sampling of a method that is scored, at its most calls."""
    scored = scored_samplings(experiment, method)
    return next(cell for cell in cells(experiment, method) if cell[0] in scored)


def half_width_note(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> str:
    """The half-widths of the paired intervals in the main cell of each method, for each dataset and metric."""
    first = {method: _main_cell(experiment, method) for method in rows["method"].unique()}
    is_main = [(r.sampler, r.nfe) == first[r.method] and r.control != "" for r in each(rows)]
    main = rows[pd.Series(is_main, index=rows.index, dtype=bool)]
    if main.empty:
        return ""
    texts = []
    for (sampler, nfe), cell in main.groupby(["sampler", "nfe"], sort=False):
        groups = cell.groupby(["dataset", "metric"], sort=False)
        said = [f"{metric} on {dataset} {text}" for (dataset, metric), g in groups if (text := half_widths(g))]
        texts += [f"with {sampler} at {nfe} network calls: {'; '.join(said)}"] if said else []
    if not texts:
        lone = "No method shares two seeds with its control, so no difference says anything of other trainings."
        return " ".join([lone, *over_samples_note(rows)])
    about = (
        "Half-width of the paired interval, over seeds or samples, whichever is wider, below which a difference cannot "
        "be told from zero here"
    )
    return f"{about}, {'; and '.join(texts)}."


def over_samples_note(rows: pd.DataFrame) -> Iterator[str]:
    """How many of the differences of these trained networks more samples would hardly undo."""
    known = rows[rows["difference_sample_low"].notna()]
    if len(known):
        apart = (known["difference_sample_low"].gt(0) | known["difference_sample_high"].lt(0)).sum()
        yield (
            f"Of these trained networks, {apart} of {len(known)} differences have a 95 % interval over samples that "
            f"excludes 0; of equal ones {0.05 * len(known):.2g} would."
        )


def elsewhere(rows: pd.DataFrame) -> Iterator[str]:
    """What is published for rows of a table in other settings, each once; why it does not compare; what tags say."""
    found: dict[str, dict[str, None]] = {}
    for row in each(rows[rows["tag"].notna() & rows["published"].isna() & rows["elsewhere"].fillna("").ne("")]):
        why = row.verdict if isinstance(row.verdict, str) else ""
        found.setdefault(why, {})[f"{row.label} {row.elsewhere} [{row.tag}]"] = None
    for why, texts in found.items():
        yield f"Published in other settings{f' ({why})' if why else ''}: {'; '.join(texts)}. {TAGS}"


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
            "score": [_score(r) for r in each(rows)],
            "seeds": rows["seeds"],
            "control": [_control(experiment, c) for c in rows["control"]],
            "difference": [difference_text(r) for r in each(rows)],
            "half-width": rows["half_width"],
            "published": [published_text(r) for r in each(rows)],
            "verdict": rows["verdict"].where(rows["published"].notna()).fillna(""),
            "seconds a step": [with_spread(r.step_seconds, r.step_seconds_sd) for r in each(rows)],
            "CPU seconds a step": [with_spread(r.step_cpu_seconds, r.step_cpu_seconds_sd) for r in each(rows)],
            "memory (MB)": rows["peak_memory_mb"],
            "images in control's time": rows["images_in_control_time"],
            "note": rows["note"],
        }
    )
    return texts.drop(columns=[c for c in texts if len(texts) and texts[c].replace("", pd.NA).isna().all()])


def _score(row: Any) -> str:
    """The spread over seeds, or of a single one the interval over samples."""
    return with_spread(row.mean, row.sd) if row.seeds > 1 else with_interval(row.mean, row.sample_low, row.sample_high)


def difference_text(row: Any) -> str:
    """With its intervals over seeds and over samples."""
    samples = (row.difference_sample_low, row.difference_sample_high)
    return with_intervals(row.difference, (row.low, row.high), samples)


def without_constants(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """What stands in all rows of a shown table as a sentence, and the table without these columns."""
    same = [c for c in SHARED if c in table and len(table) > 1 and table[c].nunique(dropna=False) == 1]
    texts = [f"{name} {number(table[name].iloc[0])}" for name in same]
    return f"In all rows: {', '.join(texts)}." if texts else "", table.drop(columns=same)


def published_text(row: Any) -> str:
    """Where there is a number for this very dataset and number of calls; others are said once (`elsewhere`)."""
    return "" if pd.isna(row.tag) or pd.isna(row.published) else f"{number(row.published)} [{row.tag}]"


def each(rows: pd.DataFrame) -> Iterator[Any]:
    """The rows with their columns as attributes."""
    yield from rows.itertuples(index=False, name="Row")


def _control(experiment: Mapping[str, Any], control: str) -> str:
    method, _, variant = control.partition("/")
    return label(experiment, method, variant) if control else ""
