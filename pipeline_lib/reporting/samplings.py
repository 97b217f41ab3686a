"""The table of samplings: every run in every cell, with its paired difference to the sampling's control.

A sampling and its control draw from the same networks, with the same labels and random numbers, so what differs is the
sampler and its corrections.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib import registry
from pipeline_lib.config.sampled import is_scored, samplings_of
from pipeline_lib.records.tables import SAMPLINGS
from pipeline_lib.reporting.collect import joined, manifest
from pipeline_lib.reporting.comparisons import (
    VERDICTS,
    Cell,
    Scores,
    Section,
    Tables,
    difference,
    difference_text,
    each,
    elsewhere,
    over_samples_note,
    published,
    published_text,
    remarks,
    sample_differences,
    unscored,
    without_constants,
)
from pipeline_lib.reporting.summaries import (
    RUN,
    difference_summary,
    label,
    main_bandwidth,
    with_interval,
    with_spread,
)

NAME = "samplings"
TITLE = "Samplers and corrections"
READING = (
    "Mean ± standard deviation over training seeds. Difference: to the control sampling of the same runs, paired by "
    "seed, with its 95 % t-interval, and after 'samples' the interval over samples, paired by image. MMD² at x_0 under "
    "the first kernel; its difference is paired by chain (the same network, noise and labels). The intervals over "
    "samples and of the MMD² (the mean over seeds) are those of the trained networks: they say nothing of other "
    "networks. Intervals are not widened for the number of rows. Every step of the curves is in "
    "sampling_difference.csv, every score in score_difference.csv."
)
NOT_SCORED = "not scored: it serves the cumulative error alone"
OTHER_CALLS = "the control is not sampled with so many network calls"
Who = tuple[Any, ...]


def section(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> Section:
    """The table with what a reader must know; `folder` is that of the experiment."""
    rows = measure(folder, experiment, tables)
    reading = [READING, VERDICTS] if rows["verdict"].notna().any() else [READING]
    lost = unscored(rows, tables["scores"])
    there = rows[[key not in lost for key in zip(rows["dataset"], rows["metric"], strict=True)]]
    constant, readable = without_constants(shown(there))
    beneath = [*elsewhere(there), *(f"{metric} on {dataset}: {why}" for (dataset, metric), why in lost.items())]
    about = [*([constant] if constant else []), *over_samples_note(rows)]
    return Section(NAME, TITLE, reading, about, rows, readable, beneath)


def measure(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of `SAMPLINGS`: for every run and metric, its samplings in the order of the plan, most calls first."""
    scores, chains = Scores(tables["scores"]), _chains(experiment, tables)
    runs = dict.fromkeys((i["dataset"], i["method"], i["variant"]) for i in experiment["instances"])
    over_samples, shares = sample_differences(tables, "sampling"), _infeasible(folder, experiment)
    found = [row for run in runs for row in _rows(experiment, scores, over_samples, chains, shares, *run)]
    return joined([pd.DataFrame(found)], SAMPLINGS)


def _rows(
    experiment: Mapping[str, Any],
    scores: Scores,
    over_samples: Mapping[Who, Any],
    chains: Mapping[Who, Mapping[str, float]],
    shares: Mapping[Who, list[float]],
    dataset: str,
    method: str,
    variant: str,
) -> Iterator[dict[str, Any]]:
    about = experiment["methods"][method]["variants"][variant]
    seeds = [
        i["seed"]
        for i in experiment["instances"]
        if (i["dataset"], i["method"], i["variant"]) == (dataset, method, variant)
    ]
    for metric in scores.metrics(dataset):
        for sampler in samplings_of(experiment, method):
            sampling = experiment["samplings"][sampler]
            for nfe in sorted(sampling["nfe"], reverse=True):
                cell = Cell(dataset, sampler, nfe, metric)
                who = (dataset, method, variant, sampler, nfe)
                mine, values = scores.rows(cell, method, variant), scores.values(cell, method, variant)
                missing = remarks(mine, metric, seeds, values) if is_scored(experiment, sampler) else [NOT_SCORED]
                yield {
                    **vars(cell),
                    "method": method,
                    "label": label(experiment, method, variant),
                    "variant": variant,
                    "preset": about["preset"] or "none",
                    "corrections": described(sampling),
                    "mean": values.mean(),
                    "sd": values.std(),
                    "seeds": len(values),
                    "control": sampling["control"] or "",
                    **difference(
                        values, _control(experiment, scores, cell, method, variant), over_samples.get((*who, metric))
                    ),
                    **published(experiment, cell, method, variant, mine, values),
                    **chains.get(who, {}),
                    "note": "; ".join(
                        [
                            *missing,
                            *_other_calls(experiment, cell),
                            *_without_noise(shares.get(who, [])),
                        ]
                    ),
                }


def _control(
    experiment: Mapping[str, Any], scores: Scores, cell: Cell, method: str, variant: str
) -> "pd.Series[float] | None":
    control = experiment["samplings"][cell.sampler]["control"]
    if control is None or _other_calls(experiment, cell):
        return None
    return scores.values(Cell(cell.dataset, control, cell.nfe, cell.metric), method, variant)


def _other_calls(experiment: Mapping[str, Any], cell: Cell) -> list[str]:
    control = experiment["samplings"][cell.sampler]["control"]
    return [OTHER_CALLS] if control and cell.nfe not in experiment["samplings"][control]["nfe"] else []


def _infeasible(folder: Path, experiment: Mapping[str, Any]) -> dict[Who, list[float]]:
    """Cell -> share of its noisy steps that variance downscaling leaves without noise, of every seed that is drawn."""
    found: dict[Who, list[float]] = {}
    for one in experiment["instances"]:
        for sampler in samplings_of(experiment, one["method"]):
            made = manifest(folder, f"{one['path']}/{sampler}/sample")
            for cell in made.facts["cells"] if made else ():
                who = (one["dataset"], one["method"], one["variant"], sampler, cell["nfe"])
                found.setdefault(who, []).extend([cell["infeasible"]] if "infeasible" in cell else [])
    return found


def _without_noise(shares: list[float]) -> Iterator[str]:
    if shares:
        ends = " to ".join(dict.fromkeys(f"{100 * share:.0f}" for share in (min(shares), max(shares))))
        yield f"variance downscaling is infeasible at {ends} % of the noisy steps, which add no noise"


def _chains(experiment: Mapping[str, Any], tables: Tables) -> dict[Who, dict[str, float]]:
    """Cell -> MMD^2 at x_0 and its difference to the control, under the first kernel and the main bandwidth."""
    kernel, bandwidth = experiment["errors"]["kernels"][0], main_bandwidth(experiment)
    errors = tables["cumulative_error"]
    first = errors["kernel"].eq(kernel) & errors["bandwidth"].eq(bandwidth)
    last = errors[first & errors["law"].eq("marginal") & errors["t"].eq(0)].groupby(RUN, sort=False)["mmd2"].mean()
    found: dict[Any, dict[str, float]] = {key: {"mmd2": value} for key, value in last.items()}
    paired = difference_summary(tables["sampling_difference"])
    here = paired["kernel"].eq(kernel) & paired["bandwidth"].eq(bandwidth) & paired["of"].eq("x_0")
    for row in each(paired[here]):
        key = tuple(getattr(row, k) for k in RUN)
        found.setdefault(key, {})
        found[key] |= {"mmd2_difference": row.difference, "mmd2_low": row.low, "mmd2_high": row.high}
    return found


def described(sampling: Mapping[str, Any]) -> str:
    """'ddim (eta 0.2), epsilon-scaling (b 1.01)': sampler and corrections with what differs from their defaults.

    Constants that are tuned or transferred differ from run to run: the table `tuned` has them.
    """
    parts = [("samplers", sampling["sampler"]), *(("samplers/corrections", c) for c in sampling["corrections"])]
    found = [_part(kind, values) for kind, values in parts]
    found += [f"weights {sampling['weights']}"] if sampling.get("weights") else []
    if sampling["tuning"]:
        found.append(f"tuned by {sampling['tuning']['name']}")
    if given := sampling["transfer"]:
        place = [f"at {given['nfe']} calls"] if given["nfe"] else []
        place += [f"on {given['dataset']}"] if given["dataset"] else []
        found.append(" ".join([f"constants of {given['sampling']}", *place]))
    return ", ".join(found)


def drawn(sampling: Mapping[str, Any]) -> str:
    """'ancestral, spacing uniform, no corrections': all that says how samples are drawn, but the number of calls."""
    return (
        f"{described(sampling)}, spacing {sampling['spacing']}{'' if sampling['corrections'] else ', no corrections'}"
    )


def _part(kind: str, values: Mapping[str, Any]) -> str:
    defaults = _defaults(kind, values["name"])
    given = [f"{k} {v}" for k, v in values.items() if k not in ("name", "code") and v != defaults.get(k, ...)]
    return f"{values['name']} ({', '.join(given)})" if given else str(values["name"])


@cache
def _defaults(kind: str, name: str) -> dict[str, Any]:
    fields = registry.find(kind, name).Options.model_fields
    return {k: field.default for k, field in fields.items() if not field.is_required()}


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows for a reader, without columns that are empty throughout."""
    texts = pd.DataFrame(
        {
            "dataset": rows["dataset"],
            "method": rows["label"],
            "sampler": rows["sampler"],
            "sampler and corrections": rows["corrections"],
            "nfe": rows["nfe"],
            "metric": rows["metric"],
            "score": [with_spread(r.mean, r.sd) for r in each(rows)],
            "seeds": rows["seeds"],
            "control": rows["control"],
            "difference": [difference_text(r) for r in each(rows)],
            "published": [published_text(r) for r in each(rows)],
            "verdict": rows["verdict"].where(rows["published"].notna()).fillna(""),
            "MMD² at x_0": rows["mmd2"],
            "its difference": [with_interval(r.mmd2_difference, r.mmd2_low, r.mmd2_high) for r in each(rows)],
            "note": rows["note"],
        }
    )
    return texts.drop(columns=[c for c in texts if len(texts) and texts[c].replace("", pd.NA).isna().all()])
