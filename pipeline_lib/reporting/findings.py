"""What the curves of the cumulative error say, in words, each with the number that it rests on."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from pipeline_lib.reporting.comparisons import each
from pipeline_lib.reporting.summaries import (
    difference_summary,
    error_summary,
    label,
    main_rows,
    marginal,
    of_grid,
    of_main_sampling,
)

RUN = ["dataset", "method", "variant", "nfe"]
CELL = ["dataset", "method", "variant", "sampler", "nfe"]
COUNTED = {"below": "below", "above": "above", "pairs": "seeds"}
VERDICTS = ("grows", "falls", "horizontal", "undecided")


def readings(tables: Mapping[str, pd.DataFrame], experiment: Mapping[str, Any]) -> list[dict[str, str]]:
    """For every trained method in each cell of its first sampling, what the numbers say."""
    errors, trends = (main_rows(tables[name], experiment) for name in ("cumulative_error", "trends"))
    differences = of_main_sampling(tables["cumulative_error_difference"], experiment)
    main = main_rows(differences, experiment)
    means = difference_summary(main).query("of == 'mean over the curve'")
    summaries = _by(RUN, error_summary(marginal(errors)))
    trends_of, paired_of, main_of, means_of = (_by(RUN, rows) for rows in (trends, differences, main, means))
    found = []
    for key in errors[RUN].drop_duplicates().itertuples(index=False, name=None):
        dataset, method, variant, nfe = map(str, key)
        mine = trends_of.get(key, trends[:0])
        usual, own = marginal(mine), mine[mine["law"].eq("training-inputs")]
        against_own = f"against the inputs of its own training, {text}" if (text := "; ".join(verdicts(own))) else ""
        given = paired_of.get(key, differences[:0]), main_of.get(key, main[:0]), means_of.get(key, means[:0])
        compared = _against_control(*given, experiment)
        says = [_above_null(summaries.get(key)), _rank_correlations(usual), *verdicts(usual), against_own, compared]
        who = f"{label(experiment, method, variant)} on {dataset}, {nfe} network calls"
        found.append({"who": who, "says": f"{'; '.join(filter(None, says))}."})
    return found


def _by(keys: list[str], rows: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    return dict(iter(rows.groupby(keys, sort=False)))


def verdicts(trends: pd.DataFrame) -> Iterator[str]:
    """How many curves grow, fall, are a line or neither; what is not seen goes with what would have been."""
    total = trends["trend"].eq("fluctuation").sum()
    for kind in VERDICTS:
        mine = trends[trends["verdict"].eq(kind)]
        bound, ratio = (mine[mine["trend"].eq(t)] for t in ("fluctuation", "growth-ratio"))
        if bound.empty:
            continue
        count = f"{len(bound)} of {total} curves"
        if kind == "grows":
            by = f", from first to last quarter at least by the factor {ratio['low'].min():.2g}" if _all(ratio) else ""
            yield f"the error grows in {count}{by}"
        elif kind == "falls":
            by = f", from first to last quarter at most to {ratio['high'].max():.2g} of it" if _all(ratio) else ""
            yield f"the error falls in {count}{by}"
        elif kind == "horizontal":
            yield f"{count} are a horizontal line: a growth of more than {bound['high'].max():.2g} would have been seen"
        else:
            yield (
                f"{count} are undecided: neither growth nor a line is shown (a fluctuation of up to "
                f"{bound['high'].max():.2g} is not excluded, a line may have {bound['tolerance'].min():.2g})"
            )


def interval(row: Any) -> str:
    """'value [low, high]' of a row of trends."""
    return f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]" if pd.notna(row.value) else "not defined"


def _all(rows: pd.DataFrame) -> bool:
    return bool(rows["value"].notna().all())


def _above_null(summary: pd.DataFrame | None) -> str:
    """'above the null's 95 % quantile on 14 (laplace), 12 (gaussian) of 19 steps'."""
    if summary is None or not summary["tested"].any():
        return "no null was drawn"
    above = [f"{group['above'].sum()} ({kernel})" for kernel, group in summary.groupby("kernel", sort=False)]
    tested = summary.groupby("kernel", sort=False)["tested"].sum().iloc[0]
    seeds = summary["seed"].nunique()
    over = f" over {seeds} seeds" if seeds > 1 else ""
    level = f"{100 * summary['confidence'].iloc[0]:g} %"
    return f"above the null's {level} quantile on {', '.join(above)} of {tested} steps{over}"


def _against_control(
    paired: pd.DataFrame, rows: pd.DataFrame, summary: pd.DataFrame, experiment: Mapping[str, Any]
) -> str:
    """'less its control DDPM, chain by chain, the mean over the curve is -0.001 [-0.002, -0.0005] (laplace), ...'.

    `rows` are those of `paired` at the main bandwidth, `summary` their means. The verdict rests on the mean, since the
    steps of a curve depend on each other.
    """
    if paired.empty:
        return ""
    who = label(experiment, *paired["control"].iloc[0].split("/"))
    if rows.empty:
        return f"no difference to {who}: {paired['note'].iloc[0]}"
    means = [_mean_difference(row) for row in summary.itertuples()]
    total, below, above = (summary[k].sum() for k in ("seeds", "below", "above"))
    verdict = f"is lower in {below}, higher in {above}, not told apart in {total - below - above} of {total} curves"
    steps = rows[rows["of"].eq("step") & rows["step"].gt(0)]
    apart = (steps["low"].gt(0) | steps["high"].lt(0)).sum()
    return (
        f"paired by chain with its control {who}, the mean over the curve {verdict}: {', '.join(means)} (single steps, "
        f"which depend on each other: {apart} of {len(steps)} intervals exclude 0)"
    )


def _mean_difference(row: Any) -> str:
    over = f", ± {row.half_width:.2g} over seeds" if row.seeds > 1 else ""
    return f"{row.difference:.2g} [{row.low:.2g}, {row.high:.2g}]{over} ({row.kernel})"


def _rank_correlations(trends: pd.DataFrame) -> str:
    """'rank correlation with the step 0.7 [0.5, 0.8] (laplace), ...'."""
    ranks = trends[trends["trend"].eq("rank-correlation") & trends["value"].notna()]
    if ranks.empty:
        return ""
    values = []
    for kernel, rows in ranks.groupby("kernel", sort=False):
        shown = interval(next(rows.itertuples())) if len(rows) == 1 else f"{rows['value'].mean():.3g}"
        values.append(f"{shown} ({kernel})")
    return f"rank correlation with the step {', '.join(values)}"


def overview(tables: Mapping[str, pd.DataFrame], experiment: Mapping[str, Any]) -> pd.DataFrame:
    """What `readings` says, as numbers: a row for every trained method in each cell of its first sampling.

    `grid` marks points of a grid. Of so many `curves` (kernels and seeds) the verdicts are counted, of so many `pairs`
    those whose own interval lies `below` or `above` 0.
    The difference is that of the mean over the curve, of the first kernel.
    """
    errors, trends = (marginal(main_rows(tables[name], experiment)) for name in ("cumulative_error", "trends"))
    paired = main_rows(tables["cumulative_error_difference"], experiment)
    means = difference_summary(paired).query("of == 'mean over the curve'")
    rows = []
    trends_of, means_of = (_by(CELL, found) for found in (trends, means))
    for key, summary in _by(CELL, error_summary(errors)).items():
        mine, pairs = trends_of.get(key, trends[:0]), means_of.get(key, means[:0])
        dataset, method, variant, sampler = map(str, key[:4])
        about = {"dataset": dataset, "method": method, "variant": variant, "sampler": sampler, "nfe": key[4]}
        control = experiment["methods"][method]["variants"][variant]["control"]
        rows.append(
            {
                **about,
                "label": label(experiment, method, variant),
                "grid": of_grid(experiment, method, variant),
                **_growth(summary, mine),
                "control": label(experiment, *control.split("/")) if control else "",
                **_paired(pairs, experiment["errors"]["kernels"][0]),
            }
        )
    return pd.DataFrame(rows)


def _growth(summary: pd.DataFrame, trends: pd.DataFrame) -> dict[str, Any]:
    """Verdicts on the curves of one cell, the share of their steps above the null, and their mean rank correlation."""
    verdict = trends.loc[trends["trend"].eq("fluctuation"), "verdict"]
    return {
        "curves": len(verdict),
        **{kind: int(verdict.eq(kind).sum()) for kind in VERDICTS},
        "above_null": summary["above"].sum() / summary["tested"].sum() if summary["tested"].any() else None,
        "rank_correlation": trends.loc[trends["trend"].eq("rank-correlation"), "value"].mean(),
    }


def _paired(pairs: pd.DataFrame, kernel: str) -> dict[str, Any]:
    """The paired difference of one cell in one kernel, and how many of all kernels and seeds are apart from 0."""
    one = pairs[pairs["kernel"].eq(kernel)].iloc[:1]
    values = {k: one[k].iloc[0] if len(one) else None for k in ("difference", "low", "high", "half_width")}
    return values | {name: int(pairs[k].sum()) for name, k in COUNTED.items()}


def important(
    found: pd.DataFrame, scores: pd.DataFrame, over_samples: Mapping[Any, Any], experiment: Mapping[str, Any]
) -> Iterator[str]:
    """Few sentences on the most calls of each method: whose error grows, and who is apart from its control.

    `found` is an `overview`, so of the first sampling, which is named where there are others; `scores` a
    `score_summary`, `over_samples` what `comparisons.sample_differences` gives; points of grids are left out.
    """
    if found.empty:
        return
    main = found[~found["grid"] & found["nfe"].eq(found.groupby(["dataset", "method"])["nfe"].transform("max"))]
    several, fewer = main["dataset"].nunique() > 1, len(main) < (~found["grid"]).sum()
    most = " (at the most network calls" if fewer else ""
    drawn = f" (sampling {', '.join(main['sampler'].unique())})" if len(experiment["samplings"]) > 1 else ""
    names = main["label"] + (" on " + main["dataset"] if several else "")
    yield from _listed(
        f"The error grows along the chain{drawn}{most and f'{most}; at fewer: the table below)'}",
        {
            "in every curve of": names[main["grows"].eq(main["curves"]) & main["curves"].gt(0)],
            "in some curves of": names[main["grows"].between(1, main["curves"] - 1)],
            "in no curve of": names[main["grows"].eq(0)],
        },
    )
    paired = main["pairs"].gt(0)
    lower, higher = (paired & main[k].eq(main["pairs"]) for k in ("below", "above"))
    yield from _listed(
        f"Paired by chain with its control, the mean MMD² over the curve{drawn}{most and f'{most})'} is",
        {
            "lower in every curve for": names[lower],
            "higher in every curve for": names[higher],
            "neither lower nor higher in every curve for": names[paired & ~lower & ~higher],
        },
    )
    yield from _score_sentences(scores, over_samples, experiment)


def _score_sentences(
    scores: pd.DataFrame, over_samples: Mapping[Any, Any], experiment: Mapping[str, Any]
) -> Iterator[str]:
    """Cells whose paired score difference excludes 0, over seeds and over samples: seeds share the noise of samples,
    so two of them may agree by far more than either is known."""
    known = scores[scores["difference_low"].notna()]
    grid = [of_grid(experiment, *who) for who in zip(known["method"], known["variant"], strict=True)]
    known = known[~pd.Series(grid, index=known.index, dtype=bool)]
    for metric, rows in known.groupby("metric", sort=False):
        who = zip(rows["method"], rows["variant"], strict=True)
        where = rows["dataset"] + ", " + rows["sampler"] + ", " + rows["nfe"].astype(str) + " calls"
        names = pd.Series([label(experiment, *one) for one in who], index=rows.index) + " (" + where + ")"
        samples = [over_samples.get(key) for key in zip(*(rows[c] for c in (*CELL, "metric")), strict=True)]
        below = pd.Series([one is not None and one.high < 0 for one in samples], index=rows.index, dtype=bool)
        above = pd.Series([one is not None and one.low > 0 for one in samples], index=rows.index, dtype=bool)
        low, high = below & rows["difference_high"].lt(0), above & rows["difference_low"].gt(0)
        yield from _apart(f"{metric} less that of the control", names, low, high)


def at_equal_costs(rows: pd.DataFrame, seconds: str, experiment: Mapping[str, Any]) -> Iterator[str]:
    """Cells whose score after equally many `seconds` (as they are called) differs from the control's, as above.

    `rows` are those of `progress.equal_costs`.
    """
    known = rows[rows["at"].eq("gpu-seconds") & rows["low"].notna()]
    grid = [of_grid(experiment, *who) for who in zip(known["method"], known["variant"], strict=True)]
    for metric, mine in known[~pd.Series(grid, index=known.index, dtype=bool)].groupby("metric", sort=False):
        names = pd.Series(
            [
                f"{label(experiment, row.method, row.variant)} ({row.dataset}, {row.sampler}, {row.nfe} calls: "
                f"{row.difference:+.3g} [{row.low:.3g}, {row.high:.3g}] after {row.budget:.3g} s)"
                for row in each(mine)
            ],
            index=mine.index,
        )
        low = mine["high"].lt(0) & mine["high_samples"].lt(0)
        high = mine["low"].gt(0) & mine["low_samples"].gt(0)
        yield from _apart(f"{metric} at equal {seconds} less that of the control", names, low, high)


def _apart(what: str, names: "pd.Series[str]", low: "pd.Series[bool]", high: "pd.Series[bool]") -> Iterator[str]:
    neither = int((~low & ~high).sum())
    rest = pd.Series([f"{neither} of {len(names)} cells"] if neither else [], dtype=object)
    kinds = {"lower for": names[low], "higher for": names[high], "not told apart in": rest}
    yield from _listed(f"{what}, over training seeds (95 % t-interval) and over samples alike, is", kinds)


def _listed(question: str, kinds: Mapping[str, "pd.Series[str]"]) -> Iterator[str]:
    """'question kind names; kind names.'"""
    said = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if len(names)]
    if said:
        yield f"{question} {'; '.join(said).rstrip('.')}."  # a label may end with a point
