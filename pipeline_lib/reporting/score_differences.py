"""Differences of scores between a method and its control, or a sampling and its, paired by what their images share.

Image i of every run and sampling starts from the same noise with the same label, so much of what one draw of images
adds to one score it adds to the other alike, and cancels: the interval is that of the differences of influences. It is
the interval of given trained networks over other samples; what other training seeds would give is in the t-interval
over seeds, which stands beside it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.exits import PipelineError
from pipeline_lib.records.tables import SCORE_INFLUENCES, read
from pipeline_lib.reporting.differences import NOT_SAMPLED, control_method, control_sampling
from pipeline_lib.scores.estimates import CONFIDENCE, Estimate, mean

WAYS = {"method": control_method, "sampling": control_sampling}
CELL = ["dataset", "method", "variant", "seed", "sampler", "nfe"]
SAME = ["extractor_sha", "reference_sha"]
NO_SCORE = "not paired: its control has no such score of this seed and number of network calls"
OTHER_SCORE = "not paired: its control was scored with other weights of the extractor or against another reference"
NO_INFLUENCES = (
    "not paired: scores/influences.parquet of the run or its control cannot be read, or lacks this score; delete "
    "scores.parquet beside it and run again"
)

Row = dict[str, Any]
Key = tuple[Any, ...]


def score_differences(folder: Path, experiment: Mapping[str, Any], scores: pd.DataFrame) -> Iterator[Row]:
    """Rows of `IDENTITY` and `SCORE_DIFFERENCES` of every score with a control; `folder` is that of the experiment.

    A row for each seed, which says why where there is no difference, then their mean in a row without a seed: since
    seeds share the noise of image i, its error is that of the mean of their influences. Scores without a standard
    error have no influences, and no row.
    """
    runs = scores["status"].eq("done") & scores["se"].notna() & scores["method"].isin(list(experiment["methods"]))
    known = {(*_cell(row), row.metric): row for row in scores[runs].itertuples(index=False)}
    drawn: dict[Key, dict[Key, list[Any]]] = {}  # a run but for its seed, in one sampling -> calls and metric -> rows
    for row in known.values():
        cells = drawn.setdefault((row.dataset, row.method, row.variant, row.sampler), {})
        cells.setdefault((row.nfe, row.metric), []).append(row)
    for cells in drawn.values():
        find = _Differences(folder, known)
        for rows in cells.values():
            for of, control_of in WAYS.items():
                pairs = [(row, control_of(experiment, _cell(row))) for row in rows]
                found = [(_about(row, of, control[0]), find(row, *control[1:])) for row, control in pairs if control]
                yield from _rows(found)


class _Differences:
    """Paired differences of one sampling of a method, of all its seeds; every record is read once."""

    def __init__(self, folder: Path, known: Mapping[Key, Any]) -> None:
        self.folder, self.known = folder, known
        self.load = lru_cache(maxsize=None)(influences)

    def __call__(self, row: Any, other: Key, shared: bool) -> Estimate | str:
        """The difference of a score to that of the cell `other`, or why there is none."""
        if not shared:
            return NOT_SAMPLED
        control = self.known.get((*other, row.metric))
        if control is None:
            return NO_SCORE
        if any(str(getattr(row, name)) != str(getattr(control, name)) for name in SAME):
            return OTHER_SCORE
        try:
            return self._estimate(row) - self._estimate(control)
        except (PipelineError, KeyError):
            return NO_INFLUENCES
        except ValueError as unequal:
            return f"not paired: {unequal}"

    def _estimate(self, row: Any) -> Estimate:
        """Raises BadData where the record cannot be read, KeyError where the score is not in it."""
        place = self.folder.joinpath(row.dataset, row.method, row.variant, f"s{row.seed}", row.sampler, "scores")
        return Estimate(row.value, self.load(place / "influences.parquet")[row.nfe, row.metric].astype(float))


def _rows(found: list[tuple[Row, Estimate | str]]) -> Iterator[Row]:
    """A row of each seed, and of the mean over those that are paired with as many images."""
    for about, one in found:
        yield about | ({"note": one} if isinstance(one, str) else _numbers(one))
    paired = [(about, one) for about, one in found if isinstance(one, Estimate)]
    if len({len(one.influence) for _, one in paired}) == 1:
        value = float(np.mean([about["value"] for about, _ in paired]))
        over = {"seed": None, "value": value, "seeds": len(paired)}
        yield paired[0][0] | over | _numbers(mean([one for _, one in paired]))


def _about(row: Any, of: str, control: str) -> Row:
    about = {name: getattr(row, name) for name in (*CELL, "preset", "metric", "value")}
    return {**about, "of": of, "control": control, "seeds": 1}


def _numbers(found: Estimate) -> Row:
    low, high = found.interval()
    ends = {"low": low, "high": high, "confidence": CONFIDENCE}
    return {"difference": found.value, "se": found.se, **ends, "n": len(found.influence), "note": ""}


def _cell(row: Any) -> Key:
    return tuple(getattr(row, name) for name in CELL)


def influences(path: Path) -> dict[Key, np.ndarray]:
    """(nfe, metric) -> influence (n,) of each image. Raises BadData."""
    rows = read(path, SCORE_INFLUENCES)
    return dict(zip(zip(rows["nfe"].tolist(), rows["metric"].tolist(), strict=True), rows["images"], strict=True))
