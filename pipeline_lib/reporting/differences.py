"""Differences of MMD^2 between a method and its control, or a sampling and its, paired by what their chains share.

Chain i of every run starts from the same noise and takes the same noise at every step, and forward samples are the
same, so most of what blurs one curve blurs the other alike, and cancels. An interval is that of two given trained
networks; what other training seeds would give is in the t-interval over seeds, which stands beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.errors.jackknife import Estimate, mean
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.tables import INFLUENCES, read

RUN = ["dataset", "method", "variant", "seed"]
ABOUT = [*RUN, "preset", "sampler", "nfe"]
CELL = [*RUN, "sampler", "nfe"]
READING = ["kernel", "bandwidth"]
PLACE = ["nfe", *READING, "step"]
POINT = [*READING, "step", "t", "log_snr", "length_scale", "statistic", "n", "m"]
NOT_SAMPLED = "not paired: its control is not sampled in this way, or not with so many network calls"
NO_CONTROL = "not paired: its control has no curve of this seed and number of network calls"
OTHER_GRID = "not paired: its control was measured at other t or noise levels, so no step of one belongs to the other's"
NO_INFLUENCES = (
    "not paired: errors/influences.parquet of the method or its control cannot be read or lacks steps; delete "
    "errors.parquet beside it and run again"
)

Row = dict[str, Any]
Key = tuple[Any, ...]
Influences = dict[Key, tuple[np.ndarray, np.ndarray]]
Load = Callable[[Path], Influences]


def differences(
    folder: Path, experiment: Mapping[str, Any], errors: pd.DataFrame, of: Literal["methods", "samplings"] = "methods"
) -> Iterator[Row]:
    """Rows of `IDENTITY` and `DIFFERENCES` of every method, or sampling, with a control, from the cumulative error.

    `folder` is that of the experiment. Each curve has a row of every step and one of their mean; a cell without a
    paired difference has one row that says why.
    """
    cells: dict[Key, list[Any]] = {}
    for row in errors[errors["law"].eq("marginal")].itertuples(index=False):  # frames of a few rows each take long
        cells.setdefault(_values(row, CELL), []).append(row)
    load = lru_cache(maxsize=2)(_influences)  # of a run and its control, for all numbers of calls
    most = experiment["errors"].get("paired_times")
    for key, cell in cells.items():
        control = (control_method if of == "methods" else control_sampling)(experiment, key)
        if control is None:
            continue
        name, other, shared = control
        places = [folder.joinpath(*map(str, k[:3]), f"s{k[3]}", str(k[4]), "errors") for k in (key, other)]
        about = {**dict(zip(ABOUT, _values(cell[0], ABOUT), strict=True)), "control": name}
        found = _pair(cell, cells.get(other), places, load, most) if shared else [{"note": NOT_SAMPLED}]
        yield from ({**about, **row} for row in found)


def control_method(experiment: Mapping[str, Any], key: Key) -> tuple[str, Key, bool] | None:
    """Name and cell of the method that the method of a cell is compared with, and whether it is sampled likewise."""
    dataset, method, variant, seed, sampler, nfe = key
    name = experiment["methods"][method]["variants"][variant]["control"]
    if name is None:
        return None
    control = name.split("/")
    return name, (dataset, *control, seed, sampler, nfe), sampler in samplings_of(experiment, control[0])


def control_sampling(experiment: Mapping[str, Any], key: Key) -> tuple[str, Key, bool] | None:
    """Name and cell of the sampling that the sampling of a cell is compared with, and whether it has such a cell."""
    *run, sampler, nfe = key
    name = experiment["samplings"][sampler]["control"]
    return (name, (*run, name, nfe), nfe in experiment["samplings"][name]["nfe"]) if name else None


def _pair(cell: list[Any], other: list[Any] | None, places: list[Path], load: Load, most: int | None) -> list[Row]:
    if other is None:
        return [{"note": NO_CONTROL}]
    if _points(cell) != _points(other):
        return [{"note": OTHER_GRID}]
    try:
        mine, theirs = (_estimates(rows, load(place)) for rows, place in zip((cell, other), places, strict=True))
    except PipelineError:
        return [{"note": NO_INFLUENCES}]
    if mine.keys() != theirs.keys() or not _complete(cell, mine, most):
        return [{"note": NO_INFLUENCES}]
    curves: dict[Key, list[Any]] = {}
    for point in (row for row in cell if _values(row, PLACE) in mine):
        curves.setdefault(_values(point, READING), []).append(point)
    return [row for curve in curves.values() for row in _curve(curve, mine, theirs)]


def _curve(curve: list[Any], mine: Mapping[Key, Estimate], theirs: Mapping[Key, Estimate]) -> Iterator[Row]:
    """The difference at every step of one curve, then their mean; x_T, the same noise in both, is not in the mean."""
    found = [mine[_values(row, PLACE)] - theirs[_values(row, PLACE)] for row in curve]
    for row, difference in zip(curve, found, strict=True):
        place = {"step": row.step, "t": row.t, "log_snr": row.log_snr}
        yield {"of": "step", **place, "mmd2": row.mmd2, **_numbers(row, difference)}
    later = [(row.mmd2, one) for row, one in zip(curve, found, strict=True) if row.step > 0]
    value = float(np.mean([mmd2 for mmd2, _ in later]))
    yield {"of": "mean", "mmd2": value, **_numbers(curve[0], mean([one for _, one in later]))}


def _numbers(row: Any, difference: Estimate) -> Row:
    low, high = difference.interval(row.confidence)
    about = {k: getattr(row, k) for k in (*READING, "confidence", "n", "m")}
    return {**about, "difference": difference.value, "se": difference.se, "low": low, "high": high, "note": ""}


def _values(row: Any, names: Sequence[str]) -> Key:
    return tuple(getattr(row, name) for name in names)


def _points(cell: list[Any]) -> list[Key]:
    """Where and how the curves of a cell were measured: the same for two runs whose points belong together."""
    known = (tuple(None if pd.isna(value) else value for value in _values(row, POINT)) for row in cell)
    return sorted(known, key=lambda values: values[: len(PLACE) - 1])


def _influences(place: Path) -> Influences:
    """(nfe, kernel, bandwidth, step) -> influences of the chains and of the forward samples. Raises BadData."""
    rows = read(place / "influences.parquet", INFLUENCES)
    keys = zip(*(rows[k].tolist() for k in PLACE), strict=True)
    sides = ((c.astype(float), f.astype(float)) for c, f in zip(rows["chains"], rows["forward"], strict=True))
    return dict(zip(keys, sides, strict=True))


def _complete(cell: list[Any], kept: Mapping[Key, Estimate], most: int | None) -> bool:
    """Whether every curve has the influences of as many steps as were kept: all that are measured, or `most` of them.

    What two runs both lack would else be missing in silence.
    """
    measured, found = Counter(_values(row, PLACE[:-1]) for row in cell), Counter(place[:-1] for place in kept)
    return all(found[curve] == min(steps, most or steps) for curve, steps in measured.items())


def _estimates(rows: list[Any], influences: Influences) -> dict[Key, Estimate]:
    """Of the points whose influences are kept (errors.paired_times)."""
    keyed = ((_values(row, PLACE), row.mmd2) for row in rows)
    return {key: Estimate(mmd2, *influences[key]) for key, mmd2 in keyed if key in influences}
