"""The spread of scores between trainings, without the noise of their samples."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import nan, sqrt
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.exits import PipelineError
from pipeline_lib.reporting.comparisons import each
from pipeline_lib.reporting.score_differences import influences
from pipeline_lib.reporting.summaries import RUN, done_scores, number
from pipeline_lib.scores.estimates import Estimate, variance_between

FILE = Path("scores/influences.parquet")
COLUMN = "training_sd"
NOTE = (
    f"`{COLUMN}`: standard deviation between trainings without the noise of their samples, of which that over seeds "
    "holds a part; 0 where trainings differ by no more than this noise explains: the variance was estimated at or "
    "below zero, and cut off there. From few seeds it is rough."
)
PROSE = NOTE.replace("`", "").replace("_", " ")  # as the report writes it


def spread(found: Sequence[Estimate]) -> float:
    """Standard deviation between trainings, 0 where its variance is estimated below zero; NaN where there is none."""
    try:
        return sqrt(max(0.0, variance_between(found)))
    except ValueError:
        return nan


def of_scores(folder: Path, scores: pd.DataFrame) -> dict[tuple[Any, ...], float]:
    """(dataset, method, variant, sampler, nfe, metric) -> spread, of every score with influences and several seeds;
    NaN where a record of influences cannot be read. `folder` is that of the experiment."""
    load, done = lru_cache(32)(influences), done_scores(scores)
    found: dict[tuple[Any, ...], float] = {}
    for key, rows in done[done["se"].notna()].groupby([*RUN, "metric"], sort=False):
        if rows["seed"].nunique() < 2:
            continue
        try:
            estimates = [Estimate(one.value, load(_place(folder, one))[one.nfe, one.metric]) for one in each(rows)]
        except (PipelineError, KeyError):
            estimates = []
        found[tuple(key)] = spread(estimates)
    return found


def _place(folder: Path, one: Any) -> Path:
    return folder.joinpath(one.dataset, one.method, one.variant, f"s{one.seed}", one.sampler, FILE)


def beside(summary: pd.DataFrame, keys: Sequence[str], found: Mapping[tuple[Any, ...], float]) -> pd.DataFrame:
    """A summary with the spread between trainings after its column `sd`, as text; as it is where there is none."""
    texts = [number(found.get(key, nan)) for key in summary[list(keys)].itertuples(index=False, name=None)]
    if not any(texts):
        return summary
    rows = summary.copy()
    rows.insert(list(rows.columns).index("sd") + 1, COLUMN, texts)
    return rows
