"""The tables stage: all records of an experiment as Parquet, CSV and a readable summary in Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import COMPARISON, SAMPLINGS, SWEEP, write
from pipeline_lib.reporting import (
    anatomy,
    averages,
    comparisons,
    progress,
    relative_costs,
    samplings,
    sweeps,
    trainings,
    tuning,
)
from pipeline_lib.reporting.collect import TABLES, collect
from pipeline_lib.reporting.summaries import (
    POWER,
    RUN,
    cost_summary,
    difference_summary,
    error_summary,
    markdown,
    missing_scores,
    score_summary,
    seed_mean,
    without_unused_control,
)

ERROR_NOTE = (
    "Means over seeds. Step 0 (x_T) is left out. `above` of `tested` steps exceed the quantile of the permutation "
    "null; `null_quantile` is that of the last of these (x_0, or with the training inputs, which have none, the one "
    f"before), and `detectable` the MMD^2 that would exceed it there in {100 * POWER:g} % of the cases. The whole "
    "curves are in cumulative_error.csv."
)
DIFFERENCE_NOTE = (
    "MMD^2 of a {of} less that of its control, paired by chain: both start from the same noise and are measured "
    "against the same forward samples. Every step that is paired is in the csv file of this name; the mean leaves out "
    "x_T and knows that steps depend on each other. `difference`, `low` and `high` are means over training seeds; the "
    "interval is that of one pair of trained networks, and says nothing of other seeds: `half_width` is half the 95 % "
    "t-interval over seeds, the one for a statement on the methods; `below` and `above` count the seeds whose own "
    "interval excludes 0."
)
ANATOMY_NOTE = (
    "Means over seeds. `last`: the value at the last measured step, in sampling order, that it has; `largest`: its "
    "largest size at any step. `start`: of chains that start from a true x_t, the share of T. docs/anatomy.md says "
    "what each reading is; all steps with their intervals are in anatomy.csv."
)
SCORE_NOTE = (
    "Mean and standard deviation over seeds. `se`: standard error over samples of one training, mean over seeds, of "
    "which `sd` holds a part, since seeds share random numbers. Floor: held-out real images; ceiling: noise. "
    "`difference`: paired by seed, to the control, with the ends of its 95 % t-interval. Every row with its protocol "
    "is in scores.csv. With `sets`, a score is the mean over so many sets of samples: `set_sd` is their standard "
    "deviation within a training."
)

SCORE_DIFFERENCE_NOTE = (
    "A score less that of its control, paired by image: image i of both starts from the same noise and label. "
    "Rows are means over training seeds. The interval is that of these trained networks over other samples (or of one "
    "network in two samplings), and does not speak of other training seeds: for a statement on the methods, the "
    "t-intervals over seeds are in scores.md and in the comparisons. Every seed is in score_difference.csv."
)


def run(folder: Path, experiment: dict[str, Any]) -> None:
    """Write all of `TABLES` as `tables/*.{parquet,csv,md}` below `folder`, and those of theory."""
    if experiment["analytic"]:
        from pipeline_lib.reporting import theory  # and with it torch, which takes seconds

        theory.write_tables(folder, experiment)
    if not experiment["instances"]:
        return
    tables = collect(folder, experiment)
    texts = {
        "scores": score_text(tables["scores"], experiment, trainings.of_scores(folder, tables["scores"])),
        "score_difference": score_difference_text(tables["score_difference"]),
        "cumulative_error": error_text(tables["cumulative_error"]),
        "cumulative_error_difference": difference_text(tables["cumulative_error_difference"]),
        "sampling_difference": difference_text(tables["sampling_difference"], "sampling"),
        "trends": trend_text(tables["trends"]),
        "anatomy": anatomy_text(tables["anatomy"]),
        "costs": cost_text(tables["costs"]),
        "progress": progress.text(folder, experiment, tables),
    }
    if not anatomy.measured(experiment):
        del tables["anatomy"]
    if not experiment["progress"]:
        del tables["progress"]
    for name, rows in tables.items():
        target = folder / "tables" / name
        write(target.with_suffix(".parquet"), rows, TABLES[name], {"experiment": experiment["experiment"]})
        write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
        write_text(target.with_suffix(".md"), texts[name])
    relative_costs.write_table(folder, experiment, tables)
    progress.write_table(folder, experiment, tables)
    averages.write_table(folder, experiment, tables)
    tuning.write_tables(folder, experiment, tables["scores"])
    name = experiment["experiment"]
    comparisons.write_tables(folder, comparisons.sections(folder, experiment, tables), COMPARISON, name)
    comparisons.write_tables(folder, sweeps.sections(folder, experiment, tables), SWEEP, name)
    comparisons.write_tables(folder, [samplings.section(folder, experiment, tables)], SAMPLINGS, name)


def score_text(scores: pd.DataFrame, experiment: Mapping[str, Any], spreads: Mapping[tuple[Any, ...], float]) -> str:
    """Scores over seeds, then the cells that have none, by reason. `spreads`: those between trainings, by cell."""
    missing = missing_scores(scores, experiment)
    summary = without_unused_control(score_summary(scores, experiment))
    rows = trainings.beside(summary, [*RUN, "metric"], spreads)
    note = f"{SCORE_NOTE} {trainings.NOTE}" if trainings.COLUMN in rows else SCORE_NOTE
    text = f"# Scores\n\n{note}\n\n{markdown(rows)}"
    return text if missing.empty else f"{text}\n## Cells without a score\n\n{markdown(missing)}"


def score_difference_text(rows: pd.DataFrame) -> str:
    """The means over seeds, then the scores without a difference and why."""
    lost = rows[rows["difference"].isna()].drop_duplicates([*RUN, "metric", "of", "note"])
    columns = [*RUN, "metric", "of", "control", "seeds", "value", "difference", "se", "low", "high", "n"]
    text = f"# Scores: paired difference to the control\n\n{SCORE_DIFFERENCE_NOTE}\n\n"
    text += markdown(rows.loc[rows["seed"].isna(), columns])
    if lost.empty:
        return text
    return f"{text}\n## Without a difference\n\n{markdown(lost[[*RUN, 'metric', 'of', 'control', 'note']])}"


def error_text(errors: pd.DataFrame) -> str:
    """One line a curve."""
    values = ["above", "tested", "last", "largest", "null_quantile", "detectable"]
    digest = seed_mean(error_summary(errors), [*RUN, "kernel", "bandwidth", "law"], values)
    return f"# Cumulative error (MMD^2 along the chain)\n\n{ERROR_NOTE}\n\n{markdown(digest)}"


def difference_text(differences: pd.DataFrame, of: str = "method") -> str:
    """Two lines a curve: the mean over its steps, and x_0."""
    note, shown = DIFFERENCE_NOTE.format(of=of), markdown(difference_summary(differences))
    return f"# Cumulative error: paired difference of each {of} to its control\n\n{note}\n\n{shown}"


def trend_text(trends: pd.DataFrame) -> str:
    """The trends as they are: one line a curve and trend."""
    return f"# Trends of the cumulative error along the chain\n\n{markdown(trends.drop(columns='preset'))}"


def anatomy_text(rows: pd.DataFrame) -> str:
    """One line a reading."""
    return f"# Anatomy of the error\n\n{ANATOMY_NOTE}\n\n{markdown(anatomy.summary(rows))}"


def cost_text(costs: pd.DataFrame) -> str:
    """A line a job."""
    return f"# Costs\n\n{markdown(cost_summary(costs))}"
