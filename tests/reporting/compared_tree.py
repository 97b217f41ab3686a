"""Results of an experiment with a grid, written cell by cell with numbers that the tests choose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import entry
from pipeline_lib.records.tables import SCORES, write
from pipeline_lib.reporting.collect import collect

METRIC = "FD (classifier-digits)"
LAMBDA = {"key": "objective.lambda_reg", "values": [0.1, 0.2]}
RHO = {"key": "objective.rho", "values": [0, 0.003]}
LENGTHS = {"key": "objective.bootstrap_length", "values": [1, 2, 5]}


def values(seeds: list[int]) -> dict[str, Any]:
    """Two methods, a grid over one key and one over two, all kinds of tables and figures."""
    reg = {"preset": "paper", "control": "ddpm/paper"}
    return {
        "experiment": "tiny",
        "title": "A tiny comparison",
        "seeds": seeds,
        "base": {"diffusion": {"timesteps": 100}},
        "datasets": {"digits": {"recipe": "digits"}},
        "methods": {
            "ddpm": {
                "objective": "ddpm",
                "label": "DDPM",
                "variants": {"paper": {"preset": "paper", "published": "li2024/table1/ddpm"}},
            },
            "reg": {
                "objective": "ddpm-reg",
                "label": "Regularised",
                "variants": {
                    "paper": {**reg, "published": "li2024/table1/proposed"},
                    "sweep": {**reg, "grid": {"L": LENGTHS}},
                    "grid": {**reg, "grid": {"lambda": LAMBDA, "rho": RHO}},
                },
            },
        },
        "sampling": {"ancestral": {"sampler": "ancestral", "nfe": [10, 100], "images": 100}},
        "comparisons": {"table1": {"title": "Methods", "rows": ["ddpm/paper", "reg/paper"], "note": "On digits."}},
        "sweeps": {
            "fig4": {"title": "Length", "rows": ["reg/sweep"], "x": "objective.bootstrap_length"},
            "weights": {"title": "Weights", "rows": ["reg/grid"], "x": "objective.lambda_reg", "y": "objective.rho"},
        },
    }


class Grown:
    """A results tree below the working directory."""

    def __init__(self, seeds: list[int], **changes: Any) -> None:
        plan = Plan(parse_experiment({**values(seeds), **changes}))
        self.experiment = plan.summary()
        self.folder = Path("results/tiny")
        write_json(self.folder / "config" / "experiment.json", self.experiment)
        for stage in ("data", "classifier", "reference", "bandwidths"):
            self._manifest(f"digits/{stage}", {})
        controls = [{**_score(0, 2.0), "control": "floor"}, {**_score(0, 500.0), "control": "ceiling"}]
        write(self.folder / "digits/controls/scores.parquet", controls, SCORES)

    def run(self, who: str, seed: int, fd: float | Mapping[int, float], step_ms: float = 10.0, **score: Any) -> None:
        """A training of 190 steps of 8 images, and its scores in all its samplings: one for all cells, or by number of
        calls.

        A step takes 8 tenths of its wall time on the CPU; memory is 100 MB and 1 MB for each ms of a step.
        """
        place = f"digits/{who}/s{seed}"
        self._manifest(f"{place}/train", {"steps": 190})
        seconds = 190 * step_ms / 1000
        step = {
            "step_seconds": step_ms / 1000,
            "step_cpu_seconds": 0.8 * step_ms / 1000,
            "peak_memory_mb": 100 + step_ms,
        }
        costs = {"stage": "train", "seconds": seconds, "images": 1520.0, "device": "cpu", **step}
        write_json(self.folder / place / "train/costs.json", costs)
        for sampling in self.experiment["methods"][who.partition("/")[0]]["samplings"]:
            self._manifest(f"{place}/{sampling}/sample", {"cells": []})
            known = self.experiment["samplings"][sampling]["nfe"]
            by_nfe = fd if isinstance(fd, Mapping) else dict.fromkeys(known, fd)
            self.score(f"{place}/{sampling}", by_nfe, **score)

    def score(self, place: str, by_nfe: Mapping[int, float], **score: Any) -> None:
        """The scores of a sampling, by number of calls."""
        rows = [{**_score(nfe, value), **score} for nfe, value in by_nfe.items()]
        write(self.folder / place / "scores/scores.parquet", rows, SCORES)

    def fail(self, who: str, seed: int, sentence: str) -> None:
        """A training that failed."""
        marker = self.folder / f"digits/{who}/s{seed}/train/failed.json"
        write_json(marker, {"key": "k", "code": 70, "sentence": sentence})

    def complete(self) -> "Grown":
        """All runs: DDPM scores 3 and 5, every other run 1 less than DDPM on seed 0 and 2 less on seed 1."""
        seeds = sorted({i["seed"] for i in self.experiment["instances"]})
        for one in self.experiment["instances"]:
            who, seed = f"{one['method']}/{one['variant']}", one["seed"]
            base = 3.0 + 2 * seeds.index(seed)
            self.run(who, seed, base if who == "ddpm/paper" else base - 1 - seeds.index(seed))
        return self

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """What the tables stage collects."""
        return collect(self.folder, self.experiment)

    def _manifest(self, place: str, facts: dict[str, Any]) -> None:
        store = entry(place.split("/")[-1], 1, {"place": place})
        store.folder.mkdir(parents=True, exist_ok=True)
        store.finish([], facts).save(self.folder / place / "manifest.json")


def _score(nfe: int, value: float) -> dict[str, Any]:
    return {
        "nfe": nfe,
        "metric": METRIC,
        "value": value,
        "status": "done",
        "note": "",
        "extractor": "classifier-digits",
        "samples": 100,
        "reference_split": "train",
        "reference_images": 1200,
    }
