"""Constants that were found at an end of the range that was searched: the best one may lie beyond."""

from collections.abc import Iterator

import pandas as pd

NEUTRAL = {"b": 1.0, "k": 0.0}  # these change nothing, and a range may end there on purpose
CONSTANTS = ("b", "k", "window", "cutoff")  # of corrections that have columns of their own in `TRIALS`


def at_end(search: pd.DataFrame) -> list[str]:
    """Names of these constants, from the rows of `TRIALS` of one search at one number of calls.

    b counts where the best of the first stride is the smallest or largest that was tried: finer strides lie around it.
    """
    chosen = search[search["chosen"].eq("chosen")]
    return [name for name in CONSTANTS for value in _found(name, search, chosen) if _ends(name, value, search)]


def _found(name: str, search: pd.DataFrame, chosen: pd.DataFrame) -> Iterator[float]:
    """The value of a constant that was chosen; of b, the best of the first stride."""
    of_b = _first_stride(search) if name == "b" else pd.DataFrame()
    rows = of_b.sort_values("score", kind="stable")[:1] if len(of_b) else chosen
    yield from rows[name].dropna().astype(float)


def _ends(name: str, value: float, search: pd.DataFrame) -> bool:
    tried = (_first_stride(search) if name == "b" else search)[name].dropna()
    return tried.nunique() > 1 and value in (tried.min(), tried.max()) and value != NEUTRAL.get(name)


def _first_stride(search: pd.DataFrame) -> pd.DataFrame:
    uniform = search[search["b"].notna() & search["score"].notna()].sort_values("trial")
    return uniform[uniform["round"].eq(uniform["round"].iloc[0])] if len(uniform) else uniform
