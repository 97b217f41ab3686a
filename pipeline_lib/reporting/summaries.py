"""What tables, report and check say about the collected frames: means over seeds, shares of steps, plain readings."""

from collections.abc import Iterable, Mapping, Sequence
from math import nan, sqrt
from statistics import NormalDist
from typing import Any

import pandas as pd

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.reporting.collect import CONTROLS
from pipeline_lib.reporting.intervals import Interval, half_width, paired

RUN = ["dataset", "method", "variant", "sampler", "nfe"]
CURVE = [*RUN, "seed", "kernel", "bandwidth", "law"]
SPREAD = ["sets", "set_sd"]  # over sets of samples
MANY = 3  # runs that are named one by one where they lack a score for the same reason
POWER = 0.8  # an effect is called detectable where so many experiments would find it


def cells(experiment: Mapping[str, Any], method: str | None = None) -> list[tuple[str, int]]:
    """(sampler, nfe) of every cell, or of those of a method; its first is its main one: first sampling, most calls."""
    names = experiment["samplings"] if method is None else samplings_of(experiment, method)
    return [(name, nfe) for name in names for nfe in sorted(experiment["samplings"][name]["nfe"], reverse=True)]


def main_sampling(experiment: Mapping[str, Any], method: str) -> str:
    """The first sampling of a method."""
    return samplings_of(experiment, method)[0]


def marginal(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of curves or trends measured against q(x_t), which all methods have."""
    return rows[rows["law"].eq("marginal")]


def main_bandwidth(experiment: Mapping[str, Any]) -> str:
    """'shared', one kernel for all t as in the paper, where it was measured."""
    known = experiment["errors"]["bandwidths"]
    return "shared" if "shared" in known else known[0]


def of_main_sampling(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of runs, those of the first sampling of their method."""
    main = {m: main_sampling(experiment, m) for m in experiment["methods"] if samplings_of(experiment, m)}
    return rows[rows["sampler"].eq(rows["method"].map(main))]


def main_rows(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the first sampling of each method at the main bandwidth."""
    return of_main_sampling(rows[rows["bandwidth"].eq(main_bandwidth(experiment))], experiment)


def label(experiment: Mapping[str, Any], method: str, variant: str) -> str:
    """Name of a method in figures, with the variant where it has several."""
    about = experiment["methods"][method]
    return about["label"] if len(about["variants"]) == 1 else f"{about['label']} ({variant})"


def of_grid(experiment: Mapping[str, Any], method: str, variant: str) -> bool:
    """Whether a variant is a point of a grid."""
    return bool(experiment["methods"][method]["variants"][variant].get("family"))


def done_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of trained runs that hold a number."""
    return scores[(scores["status"] == "done") & ~scores["method"].isin(CONTROLS.values()) & scores["value"].notna()]


def frechet(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of the Frechet distances, which comparisons rest on, and of cells that have no score yet."""
    return scores[scores["metric"].isna() | scores["metric"].eq("FID") | scores["metric"].str.startswith("FD (")]


def seed_values(done: pd.DataFrame) -> dict[tuple[Any, ...], "pd.Series[float]"]:
    """Run, cell and metric -> the scores of its seeds, which are the index."""
    found: dict[tuple[Any, ...], dict[Any, float]] = {}
    means: dict[Any, float] = done.groupby([*RUN, "metric", "seed"])["value"].mean().to_dict()
    for key, value in means.items():
        found.setdefault(key[:-1], {})[key[-1]] = value
    ordered = done[[*RUN, "metric"]].drop_duplicates().itertuples(index=False, name=None)
    return {key: pd.Series(found[key], dtype=float) for key in ordered}


def control_value(scores: pd.DataFrame, dataset: str, metric: str, control: str) -> float:
    """Floor, ceiling or reconstruction of a metric on a dataset; NaN where it is not known."""
    rows = scores[scores["method"].eq(CONTROLS[control]) & scores["dataset"].eq(dataset) & scores["metric"].eq(metric)]
    return float(rows["value"].mean())


def score_summary(scores: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """Per cell and metric: mean and standard deviation over seeds, standard error over samples of one of them (`se`),
    floor, ceiling and what the autoencoder's images of held-out ones get (reconstruction), and the difference to the
    control. Over several sets of samples also the two levels apart (`SPREAD`).

    The difference is paired: the mean over seeds that both have, since they share sampling noise and data order, with
    its 95 % t-interval.
    """
    done = done_scores(scores)
    groups, by_seed = dict(iter(done.groupby([*RUN, "metric"], sort=False))), seed_values(done)
    of_controls = scores[scores["method"].isin(CONTROLS.values())]
    known = of_controls.groupby(["dataset", "metric", "method"])["value"].mean().to_dict()
    rows = []
    for key, values in by_seed.items():
        dataset, method, variant, sampler, nfe, metric = key
        control = experiment["methods"][method]["variants"][variant]["control"]
        other = by_seed.get((dataset, *control.split("/"), sampler, nfe, metric)) if control else None
        difference = Interval(nan, nan, nan, 0) if other is None else paired(values, other)
        rows.append(
            {
                **dict(zip([*RUN, "metric"], key, strict=True)),
                "mean": values.mean(),
                "sd": values.std(),
                "se": groups[key]["se"].astype(float).mean(),
                "seeds": len(values),
                **spread(groups[key]),
                **{c: known.get((dataset, metric, name), nan) for c, name in CONTROLS.items()},
                "control": control or "",
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
        )
    differences = ["control", "difference", "difference_low", "difference_high"]
    columns = [*RUN, "metric", "mean", "sd", "se", "seeds", *SPREAD, *CONTROLS, *differences]
    return pd.DataFrame(rows, columns=columns).astype({"sets": "Int64"})


def spread(rows: pd.DataFrame) -> dict[str, float]:
    """The spread over sets of samples of scores that are means over several; nothing where they are not.

    It cannot be taken from that over trainings: these share their sampling noise.
    """
    if rows["sets"].isna().any():
        return {}
    return {"sets": int(rows["sets"].min()), "set_sd": sqrt((rows["set_sd"].astype(float) ** 2).mean())}


def without_unused_control(summary: pd.DataFrame) -> pd.DataFrame:
    """A score summary without the columns about controls where no method has one, without reconstructions where there
    is no autoencoder, without standard errors where no score has one, and without the levels of the spread where there
    is one set of samples."""
    controlled = (summary["control"] != "").any()
    unused = [] if controlled else [c for c in summary.columns if c.startswith(("control", "difference"))]
    unused += ["reconstruction"] if summary["reconstruction"].isna().all() else []
    unused += ["se"] if summary["se"].isna().all() else []
    unused += SPREAD if summary["sets"].isna().all() else []
    return summary.drop(columns=unused)


def missing_scores(scores: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """The cells that have no number, and why; those of a metric that share a reason in one row."""
    lost = scores[scores["status"] != "done"].fillna({"metric": "", "note": ""})
    rows = [
        {
            **dict(zip(("dataset", "metric", "status"), key, strict=False)),
            "cells": len(group),
            "of": _who(group, experiment),
            "note": key[-1],
        }
        for key, group in lost.groupby(["dataset", "metric", "status", "note"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["dataset", "metric", "status", "cells", "of", "note"])


def _who(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> str:
    """Runs by name and seed where they are few, and whether floor and ceiling are among them."""
    runs = rows[~rows["method"].isin(CONTROLS.values())]
    whose: Sequence[Any] = list(dict.fromkeys(zip(runs["method"], runs["variant"], runs["seed"], strict=True)))
    names = [f"{len(whose)} runs"] if len(whose) > MANY else [f"{label(experiment, m, v)} s{s}" for m, v, s in whose]
    return ", ".join([*names, *(["controls"] * (len(runs) < len(rows)))])


def error_summary(errors: pd.DataFrame) -> pd.DataFrame:
    """Per curve: steps with a null distribution and steps above its quantile, last and largest MMD^2, and at the last
    step with a null its quantile and the smallest detectable effect, which are much smaller where there is more noise.

    Step 0 is x_T, which is pure noise in both sets, so it is left out.
    """
    curves = errors[errors["step"] > 0].sort_values("step", kind="stable")
    tested = curves["null_quantile"].notna()
    above = tested & (curves["mmd2"] > curves["null_quantile"])
    marked = curves.assign(tested=tested, above=above, detectable=detectable(curves))
    summary = marked.groupby(CURVE, sort=False).agg(
        tested=("tested", "sum"),
        above=("above", "sum"),
        last=("mmd2", "last"),
        largest=("mmd2", "max"),
        null_quantile=("null_quantile", "last"),  # of those that are not empty
        detectable=("detectable", "last"),
        confidence=("confidence", "first"),
    )
    summary.insert(2, "share", summary["above"] / summary["tested"])
    return errors[CURVE].drop_duplicates().merge(summary.reset_index(), on=CURVE)  # in the order of the plan


def detectable(rows: pd.DataFrame) -> pd.Series:
    """The smallest MMD^2 that would exceed the null's quantile in `POWER` of the cases: an effect of the quantile's own
    size does so in half of them only. Of differences, the smallest whose interval would exclude 0 so often.

    The standard error is the measured one, which is a little large for an effect that small.
    """
    beyond = rows["se"] * NormalDist().inv_cdf(POWER)
    if "null_quantile" in rows:
        return rows["null_quantile"] + beyond
    return rows["se"] * ((1 + rows["confidence"]) / 2).map(NormalDist().inv_cdf) + beyond


def difference_summary(differences: pd.DataFrame) -> pd.DataFrame:
    """Per curve over its seeds: the paired difference of the mean over its steps, and that at x_0.

    `difference`, `low` and `high` are means over seeds: the ends are those of the interval of one pair of trained
    networks. `half_width` is half the 95 % t-interval over seeds, which a statement on the methods needs; `below` and
    `above` count the seeds whose own interval excludes 0. A cell without a difference has its note.
    """
    keys = [*RUN, "control", "kernel", "bandwidth"]
    paired = differences[differences["difference"].notna()]
    last = paired[paired["of"].eq("step")].sort_values("step", kind="stable").groupby([*keys, "seed"]).tail(1)
    of = {"mean over the curve": paired[paired["of"].eq("mean")], "x_0": last}
    found = [_over_seeds(rows, keys).assign(of=name) for name, rows in of.items()]
    lost = differences.loc[differences["difference"].isna(), [*RUN, "control", "note"]].drop_duplicates()
    columns = [*keys, "of", "seeds", "difference", "low", "high", "half_width", "below", "above", "note"]
    whole = dict.fromkeys(("seeds", "below", "above"), "Int64")
    return pd.concat([*found, lost], ignore_index=True).reindex(columns=columns).astype(whole)


def _over_seeds(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    marked = rows.assign(below=rows["high"] < 0, above=rows["low"] > 0)
    return (
        marked.groupby(list(keys), sort=False)
        .agg(
            seeds=("seed", "nunique"),
            difference=("difference", "mean"),
            low=("low", "mean"),
            high=("high", "mean"),
            half_width=("difference", half_width),
            below=("below", "sum"),
            above=("above", "sum"),
        )
        .reset_index()
    )


def seed_mean(summary: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Mean of `values` over seeds, with their number."""
    if summary.empty:
        return pd.DataFrame(columns=[*keys, "seeds", *values])
    groups = summary.groupby(list(keys), sort=False)
    means = groups[list(values)].mean()
    means.insert(0, "seeds", groups["seed"].nunique())
    return means.reset_index()


def cost_summary(costs: pd.DataFrame) -> pd.DataFrame:
    """The costs for a reader: without columns that are empty throughout, as those of GPUs on a CPU."""
    seconds = device_seconds(costs["device"], " of all steps")
    unused = ["gpu_hours", "energy_kwh"] if seconds.endswith("(CPU)") else []
    kept = costs.drop(columns=["preset", *unused])
    kept = kept.dropna(axis="columns", how="all") if len(kept) else kept
    return kept.rename(columns={"gpu_seconds": seconds})


def device_seconds(devices: Iterable[Any], of: str = "") -> str:
    """What a reader is told that `gpu_seconds` are, which are wall time times processes on any device."""
    kinds = {name == "cpu" for names in devices if pd.notna(names) for name in names.split(" + ") if name}
    return f"seconds{of} (CPU{' or GPU' if False in kinds else ''})" if True in kinds else f"GPU-seconds{of}"


def number(value: Any) -> str:
    """A number at four significant digits (large ones whole), '' where it is missing."""
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def rounded(value: float, digits: int) -> str:
    """At so many significant digits: '0.11', '130' and not '1.3e+02'."""
    short = f"{value:.{digits}g}"
    return f"{float(short):.0f}" if 10**digits <= abs(value) < 1e9 or "e+0" in short else short


def with_spread(mean: float, sd: float) -> str:
    """'4.2 ± 0.11', without the spread where there is none."""
    return f"{number(mean)} ± {rounded(sd, 2)}" if pd.notna(sd) else number(mean)


def with_interval(mean: float, low: float, high: float) -> str:
    """'-0.12 [-0.2, -0.04]', without the interval where there is none."""
    return f"{number(mean)} [{rounded(low, 3)}, {rounded(high, 3)}]" if pd.notna(low) else number(mean)


def with_intervals(mean: float, seeds: tuple[float, float], samples: tuple[float, float]) -> str:
    """'-0.12 [-0.2, -0.04], samples [-0.15, -0.09]': the intervals over seeds and over samples, where there are."""
    text = with_interval(mean, *seeds)
    return f"{text}, samples [{rounded(samples[0], 3)}, {rounded(samples[1], 3)}]" if pd.notna(samples[0]) else text


def markdown(rows: pd.DataFrame) -> str:
    """A Markdown table with readable numbers."""
    if rows.empty:
        return "No data yet.\n"
    lines = [list(rows.columns), ["---"] * len(rows.columns)]
    lines += [[number(v).replace("|", "\\|") for v in row] for row in rows.itertuples(index=False, name=None)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
