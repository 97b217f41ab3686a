"""Verifies what an experiment says of itself (`checks` in its configuration) against its records."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.sampled import samplings_of, scored_samplings
from pipeline_lib.reporting.collect import CONTROLS, collect
from pipeline_lib.reporting.summaries import RUN, done_scores, error_summary, main_bandwidth, marginal

MEANINGS = {
    "fd": "FD / floor",
    "mmd": "share of steps above the null (median over kernels)",
}


@dataclass(frozen=True)
class Verdict:
    """One check on one trained method: its value (NaN without data), its bound in words, and whether it holds."""

    metric: str
    where: str
    value: float
    bound: str
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        return f"{self.result}  {self.where}: {self.metric} {self.shown} ({self.bound})"

    @property
    def result(self) -> str:
        """pass or FAIL."""
        return "pass" if self.passed else "FAIL"

    @property
    def shown(self) -> str:
        """The value, or why there is none."""
        return self.note or f"{self.value:.4g}"


@dataclass(frozen=True)
class Subject:
    """A method that a check is about, with the seeds that it must have been trained with."""

    dataset: str
    method: str
    variant: str
    sampler: str
    seeds: tuple[int, ...]

    def rows(self, table: pd.DataFrame, nfe: int) -> pd.DataFrame:
        """Its rows of a table in one cell."""
        mask = table["nfe"].eq(nfe)
        for key in ("dataset", "method", "variant", "sampler"):
            mask &= table[key].eq(getattr(self, key))
        return table[mask]


def run(folder: Path, experiment: dict[str, Any]) -> int:
    """Print one line a check; 1 if any does not hold or has no data, else 0."""
    found = verdicts(collect(folder, experiment), experiment)
    for verdict in found:
        print(verdict)
    if not found:
        print("this experiment has no checks")
    return int(not all(v.passed for v in found))


def verdicts(tables: Mapping[str, pd.DataFrame], experiment: Mapping[str, Any]) -> list[Verdict]:
    """All checks on all methods that they cover. A seed without data fails its check: survivors alone prove nothing."""
    errors = marginal(tables["cumulative_error"])
    measured = {
        "fd": _floor_ratios(tables["scores"]),
        "mmd": _shares_above(errors[errors["bandwidth"] == main_bandwidth(experiment)]),
    }
    found = []
    for check in experiment["checks"]:
        subjects = list(
            _subjects(experiment, check["nfe"], scored_samplings if check["metric"] == "fd" else samplings_of)
        )
        if not subjects:
            found.append(_judge(check, "no sampling has this cell", MEANINGS[check["metric"]], {}, ()))
        for subject in subjects:
            where = f"{subject.dataset}, {subject.method}/{subject.variant}, {subject.sampler}"
            rows = subject.rows(measured[check["metric"]], check["nfe"])
            for what in list(dict.fromkeys(rows["what"])) or [MEANINGS[check["metric"]]]:
                values = rows[rows["what"] == what].groupby("seed")["value"].mean().to_dict()
                found.append(_judge(check, where, what, values, subject.seeds))
    return found


def _subjects(
    experiment: Mapping[str, Any], nfe: int, of: Callable[[Mapping[str, Any], str], list[str]]
) -> Iterator[Subject]:
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for one in experiment["instances"]:
        seeds.setdefault((one["dataset"], one["method"], one["variant"]), []).append(one["seed"])
    for who, trained in seeds.items():
        for sampler in of(experiment, who[1]):
            if nfe in experiment["samplings"][sampler]["nfe"]:
                yield Subject(*who, sampler, tuple(trained))


def _floor_ratios(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of runs over the floor's on the same dataset, for every extractor but Inception."""
    rows = done_scores(scores)
    rows = rows[rows["metric"].str.startswith("FD (")]
    floors = scores[scores["method"] == CONTROLS["floor"]].groupby(["dataset", "metric"])["value"].mean()
    ratios = rows["value"] / rows.join(floors.rename("floor"), on=["dataset", "metric"])["floor"]
    return rows.assign(value=ratios, what=rows["metric"] + " / floor")


def _shares_above(errors: pd.DataFrame) -> pd.DataFrame:
    """Share of steps above the null's quantile, the median over kernels, so that no single one decides."""
    shares = error_summary(errors).groupby([*RUN, "seed"], sort=False)["share"].median()
    return shares.rename("value").reset_index().assign(what=MEANINGS["mmd"])


def _judge(
    check: Mapping[str, Any], where: str, name: str, values: Mapping[int, float], seeds: tuple[int, ...]
) -> Verdict:
    low, high = check["at_least"], check["at_most"]
    bound = " and ".join(f"{k} {v:g}" for k, v in (("at least", low), ("at most", high)) if v is not None)
    where = f"{where}, nfe {check['nfe']}"
    lost = [seed for seed in seeds if pd.isna(values.get(seed))]
    if lost or not values:
        note = f"no data for seed {', '.join(map(str, lost))}" if lost else "no data"
        return Verdict(name, where, float("nan"), bound, False, note)
    value = sum(values[s] for s in seeds) / len(seeds)
    passed = (low is None or value >= low) and (high is None or value <= high)
    return Verdict(name, where, value, bound, passed)
