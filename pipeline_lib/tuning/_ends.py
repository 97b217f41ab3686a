"""Constants that were found at an end of the range that was searched: the best one may lie beyond."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

NEUTRAL = {"b": 1.0, "k": 0.0}  # these change nothing, and a range may end there on purpose
CONSTANTS = ("b", "k", "window", "cutoff")  # of corrections that have columns of their own in `TRIALS`

Row = dict[Any, Any]


def at_end(search: pd.DataFrame) -> list[str]:
    """Names of these constants, from the rows of `TRIALS` of one search at one number of calls.

    b counts where the best of the first stride is the smallest or largest that was tried: finer strides lie around it.
    """
    rows = search[[*CONSTANTS, "trial", "round", "score", "chosen"]].to_dict("records")
    of_b = _first_stride(rows)
    found = {name: [row[name] for row in rows if row["chosen"] == "chosen"] for name in CONSTANTS}
    found["b"] = [row["b"] for row in sorted(of_b, key=lambda row: row["score"])[:1]]
    return [name for name in CONSTANTS if _ends(name, found[name], of_b if name == "b" else rows)]


def _ends(name: str, found: Iterable[float | None], rows: Iterable[Row]) -> bool:
    tried = {row[name] for row in rows if _known(row[name])}
    ends = {min(tried), max(tried)} - {NEUTRAL.get(name)} if len(tried) > 1 else set()
    return any(value in ends for value in found)


def _first_stride(rows: Iterable[Row]) -> list[Row]:
    """The rows that have scores of b, of the round that was made first."""
    scored = sorted((row for row in rows if _known(row["b"]) and _known(row["score"])), key=lambda row: row["trial"])
    return [row for row in scored if row["round"] == scored[0]["round"]]


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
