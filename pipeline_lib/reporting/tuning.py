"""Tuned constants: every trial, what each sampled cell uses and what that cost, and how sensitive the score is."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import IDENTITY, TRIALS, TUNED, Column, read, write
from pipeline_lib.reporting.collect import Job, jobs, joined, state
from pipeline_lib.reporting.style import COLOURS, GREY, empty
from pipeline_lib.reporting.summaries import label, markdown
from pipeline_lib.tuning._ends import at_end

FIGURE = TRIED = "tuning"
USED = "tuned"
COLUMNS = {TRIED: [*IDENTITY, *TRIALS], USED: [*IDENTITY, *TUNED]}
NOTES = {
    TRIED: "Every trial of every search, on chains that neither samples nor measured chains share. Chosen: its "
    "constants are used. A round without a score is the result of measurements that stand in the rows before it.",
    USED: "Where the constants of each sampled cell come from, its score on the final samples, which no trial saw, and "
    "what the search is charged: images through the network, and these over the calls of the final samples.",
}
AT_END = (
    "The best that was tried lies at an end of what was searched, so a better one may lie beyond; widen `low` or "
    "`high` of the tuning and its `reach`, `k_low` or `k_high`, or `windows` or `cutoffs`"
)
WHERE = ["dataset", "method", "variant", "seed", "sampler", "nfe"]
ACROSS = 3  # panels in a row


def has(experiment: Mapping[str, Any]) -> bool:
    """Whether anything is tuned in the experiment."""
    return any(one.get("tuning") for one in experiment["samplings"].values())


def tables(folder: Path, experiment: Mapping[str, Any], scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The trials, and what each sampled cell uses; `scores` is the table of scores."""
    tried = trials(folder, experiment)
    used = joined([pd.DataFrame(_used(experiment, tried, scores))], COLUMNS[USED])
    return {TRIED: tried, USED: used}


def trials(folder: Path, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """All trials of finished tunings, in the order of the plan."""
    pieces = [_trials(folder, job) for job in jobs(experiment) if job.stage == "tune"]
    return joined(pieces, COLUMNS[TRIED])


def _trials(folder: Path, job: Job) -> pd.DataFrame:
    if state(folder, job).status != "done":
        return pd.DataFrame()
    try:
        return read(folder / job.place / "trials.parquet", TRIALS).assign(**job.identity)
    except PipelineError:
        return pd.DataFrame()


def _used(experiment: Mapping[str, Any], tried: pd.DataFrame, scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    searches, scored = dict(iter(tried.groupby(WHERE))), _scored(scores)
    for one in experiment["instances"]:
        for name in samplings_of(experiment, one["method"]):
            for nfe in experiment["samplings"][name]["nfe"]:
                yield _cell(experiment, one, name, nfe, searches, scored)


def _cell(
    experiment: Mapping[str, Any],
    one: Mapping[str, Any],
    name: str,
    nfe: int,
    searches: Mapping[Any, pd.DataFrame],
    scored: Mapping[Any, dict[str, Any]],
) -> dict[str, Any]:
    """The row of TUNED of a sampled cell."""
    sampling, transfer = experiment["samplings"][name], experiment["samplings"][name].get("transfer") or {}
    source = {
        "dataset": transfer.get("dataset") or one["dataset"],
        "sampling": transfer.get("sampling") or name,
        "nfe": transfer.get("nfe") or nfe,
    }
    run = [one[k] for k in ("method", "variant", "seed")]
    search = searches.get((source["dataset"], *run, source["sampling"], source["nfe"]))
    row = {
        **{k: one[k] for k in ("dataset", "method", "variant", "seed")},
        "preset": experiment["methods"][one["method"]]["variants"][one["variant"]]["preset"] or "none",
        "sampler": name,
        "nfe": nfe,
        "origin": _origin(sampling, source, one["dataset"], nfe),
        **scored.get((one["dataset"], *run, name, nfe), {}),
    }
    if search is None:
        return row
    row |= {"at_end": bool(at_end(search))}
    row["options"] = next(iter(search.loc[search["chosen"].eq("chosen"), "options"]), None)
    if sampling.get("tuning"):
        calls = float(search["calls"].sum())
        row |= {"trials": int(search["calls"].notna().sum()), "tuning_calls": calls}
        row |= {"seconds": float(search["seconds"].sum()), "share": calls / (nfe * sampling["images"])}
    return row


def _origin(sampling: Mapping[str, Any], source: Mapping[str, Any], dataset: str, nfe: int) -> str:
    if sampling.get("tuning"):
        return f"tuned ({sampling['tuning']['name']})"
    if not sampling.get("transfer"):
        return "untuned"
    calls = f" at {source['nfe']} calls" if source["nfe"] != nfe else ""
    there = f" on {source['dataset']}" if source["dataset"] != dataset else ""
    return f"transferred from {source['sampling']}{calls}{there}"


def _scored(scores: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Cell -> its FID, or the first of its scores where there is none."""
    done = scores[scores["status"].eq("done")]
    first = done.sort_values("metric", key=lambda metric: metric.ne("FID"), kind="stable").drop_duplicates(WHERE)
    keys = first[WHERE].itertuples(index=False, name=None)
    return {
        key: {"metric": metric, "score": float(value)}
        for key, metric, value in zip(keys, first["metric"], first["value"], strict=True)
    }


def write_tables(folder: Path, experiment: Mapping[str, Any], scores: pd.DataFrame) -> None:
    """Write `tables/{tuning,tuned}.{parquet,csv,md}`, if anything is tuned."""
    if not has(experiment):
        return
    made = tables(folder, experiment, scores)
    notes = {**NOTES, USED: "\n\n".join(filter(None, (NOTES[USED], ends_note(made[TRIED], experiment))))}
    for name, rows in made.items():
        target, columns = folder / "tables" / name, COLUMNS[name]
        write(target.with_suffix(".parquet"), rows, columns, {"experiment": experiment["experiment"]})
        write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
        write_text(target.with_suffix(".md"), f"# {name.capitalize()}\n\n{notes[name]}\n\n{markdown(shown(rows))}")


def ends_note(tried: pd.DataFrame, experiment: Mapping[str, Any]) -> str:
    """Whose constants lie at an end of the range that was searched, and what to do; empty where none does."""
    keys = ["dataset", "method", "variant", "sampler", "nfe"]
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for key, one in tried.groupby([*keys, "seed"], sort=False):
        dataset, method, variant, sampler, nfe = map(str, key[:-1])
        for constant in at_end(one):
            who = f"{label(experiment, method, variant)} on {dataset}"
            found.setdefault((constant, sampler, who), {})[nfe] = None
    texts = [
        f"{constant} of {sampler} at {', '.join(calls)} calls ({who})"
        for (constant, sampler, who), calls in found.items()
    ]
    return f"{AT_END}: {'; '.join(texts)}." if texts else ""


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows for a reader, without columns that say nothing."""
    drop: list[Column] = [column for column in IDENTITY if column.name == "preset"]
    return rows.drop(columns=[column.name for column in drop]).dropna(axis="columns", how="all")


def sensitivity(tried: pd.DataFrame, experiment: Mapping[str, Any]) -> Figure:
    """Score against b, against k, against the cutoff of a time shift, and found factors against the step.

    A column of panels for each search of the first seed of a method, a line for each number of calls. Scores are over
    that without a correction (of k: without a slope), so that lines compare.
    """
    searches = _first_seeds(tried).groupby(["dataset", "method", "variant", "sampler"], sort=False)
    drawn = [(map(str, who), rows, draw) for who, rows in searches for draw in _views(rows)]
    if not drawn:
        return empty("Tuning")
    lines = -(-len(drawn) // ACROSS)
    size = (2.6 * min(len(drawn), ACROSS) + 0.3, 2.4 * lines)
    figure, axes = plt.subplots(lines, min(len(drawn), ACROSS), figsize=size, squeeze=False, layout="constrained")
    for (who, rows, draw), panel in zip(drawn, axes.flat, strict=False):
        dataset, method, variant, sampler = who
        for (nfe, found), colour in zip(rows.groupby("nfe"), COLOURS * len(rows), strict=False):
            draw(panel, found, f"{nfe} calls", colour)
        panel.set_title(f"{label(experiment, method, variant)}, {dataset}\n{sampler}", loc="left")
        panel.legend(fontsize=6.5)
    for panel in axes.flat[len(drawn) :]:
        panel.set_axis_off()
    return figure


def _first_seeds(tried: pd.DataFrame) -> pd.DataFrame:
    first = tried.groupby(["dataset", "method", "variant", "sampler"])["seed"].transform("min")
    return tried[tried["seed"].eq(first)]


def _views(rows: pd.DataFrame) -> list[Any]:
    """The panels that the trials of a search ask for."""
    views = [_against_b] if _of_b(rows)["b"].nunique() > 1 else []
    views += [_against_k] if rows["k"].fillna(0).ne(0).any() else []
    views += [_against_cutoff] if rows["cutoff"].notna().any() else []
    return views + ([_against_step] if any(map(_factors, _chosen(rows)["options"])) else [])


def _of_b(rows: pd.DataFrame) -> pd.DataFrame:
    """Trials of a uniform b: one score for each."""
    whole = pd.Series([not _factors(text) for text in rows["options"]], rows.index, dtype=bool)
    return rows[whole & rows["b"].notna() & rows["k"].eq(0) & rows["score"].notna()]


def _factors(options: str) -> list[float]:
    """The factors of each step of a correction as JSON; none where it has none."""
    return (json.loads(options) or {}).get("factors") or []


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["chosen"].eq("chosen")]


def _against_b(panel: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    """Small markers are those of the finer strides."""
    found = _of_b(rows).sort_values("b")
    plain = found.loc[found["b"].eq(1), "score"]
    relative = found["score"] / (plain.iloc[0] if len(plain) else 1)
    panel.plot(found["b"], relative, color=colour, lw=1, label=name)
    coarse = found["round"].eq(found.sort_values("trial")["round"].iloc[0])
    for size, chosen in ((5, coarse), (2.5, ~coarse)):
        panel.plot(found.loc[chosen, "b"], relative[chosen], "o", color=colour, ms=size)
    _mark(panel, found["b"], relative, found["chosen"], colour)
    panel.axvline(1, color=GREY, lw=0.6, ls=":")
    panel.set(xlabel="b (dotted: no correction)", ylabel="score over that at b = 1")


def _against_k(panel: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    slopes = rows[rows["k"].fillna(0).ne(0)]
    best = _of_b(rows).sort_values("score")[:1]
    found = pd.concat([best, slopes]).sort_values("k")
    relative = found["score"] / best["score"].iloc[0]
    panel.plot(1000 * found["k"], relative, "o-", color=colour, lw=1, ms=4, label=name)
    _mark(panel, 1000 * found["k"], relative, found["chosen"], colour)
    panel.set(xlabel="1000 k, at the same mean lambda", ylabel="score over that at k = 0")


def _against_cutoff(panel: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    plain = rows.loc[rows["cutoff"].isna(), "score"].iloc[0]
    for (window, found), dash in zip(rows.groupby("window"), ("-", "--", ":", "-."), strict=False):
        relative = found["score"] / plain
        panel.plot(found["cutoff"], relative, marker="o", ms=4, ls=dash, color=colour, label=f"{name}, w = {window:g}")
        _mark(panel, found["cutoff"], relative, found["chosen"], colour)
    panel.axhline(1, color=GREY, lw=0.6, ls=":")
    panel.set(xlabel="cutoff (dotted: no shift)", ylabel="score over that without a shift")


def _against_step(panel: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    factors = _factors(_chosen(rows)["options"].iloc[0])
    panel.plot(range(len(factors)), factors, "o-", color=colour, lw=1, ms=3, label=name)
    panel.axhline(1, color=GREY, lw=0.6, ls=":")
    panel.set(xlabel="step, in sampling order", ylabel="lambda")


def _mark(panel: Axes, x: pd.Series, y: pd.Series, chosen: pd.Series, colour: str) -> None:
    used = chosen.eq("chosen")
    panel.plot(x[used], y[used], "o", ms=9, mfc="none", color=colour)
