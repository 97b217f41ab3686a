"""A small results tree, made as the stages would make it, with numbers that the tests know."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import entry
from pipeline_lib.records.tables import ANATOMY, ERRORS, HISTORY, INFLUENCES, SCORES, TRENDS, write

STEPS = (0, 5, 10, 15, 20)
SENTENCE = "the loss is not finite at step 12: the training diverged; lower training.lr."


class Tree:
    """Writes the results of an experiment of two methods and two seeds on one dataset, cell by cell."""

    def __init__(self, seeds: list[int], checks: list[dict[str, Any]]) -> None:
        self.plan = Plan(parse_experiment(_values(seeds, checks)))
        self.experiment = self.plan.summary()
        self.folder = Path("results") / self.experiment["experiment"]
        write_json(self.folder / "config" / "experiment.json", self.experiment)

    def dataset(self) -> None:
        """Data, classifier, reference, bandwidths and controls of the dataset."""
        for stage in ("data", "classifier", "reference", "bandwidths"):
            files = ["grid.png", "train-images.npy"] if stage == "data" else []
            self.manifest(f"digits/{stage}", {"images": 100}, files)
        rows = [
            {**score(0, 2.0), "control": "floor"},
            {**score(0, 500.0), "control": "ceiling"},
        ]
        write(self.folder / "digits/controls/scores.parquet", rows, SCORES)

    def train(self, method: str, seed: int) -> None:
        """One finished training with history, grid and costs."""
        place = f"digits/{method}/base/s{seed}/train"
        history = [
            {"step": s, "images": 8 * s, "key": k, "value": 1.0 / s + 0.1 * seed}
            for s in range(10, 200, 10)
            for k in ("loss", "gradient norm")
        ]
        self.manifest(place, {"steps": 190, "parameters": 1234}, ["grid.png", "history.parquet"], history)
        write_json(self.folder / place / "costs.json", costs("train", 12.5))

    def draw(self, method: str, seed: int, fd: float, above: int, own: bool = False) -> None:
        """Samples, errors and scores; `fd` is the score, `above` the number of steps above the null.

        `own`: also a curve against training inputs, of which no step is above the null.
        """
        place = f"digits/{method}/base/s{seed}/ancestral"
        cells = [{"nfe": 20, "calls": 20, "images": "nfe0020/images.npy", "grid": "nfe0020/grid.png", "count": 36}]
        self.manifest(f"{place}/sample", {"cells": cells}, ["nfe0020/grid.png", "nfe0020/images.npy"])
        about = {"stage": "errors", "versions": {"torch": "2.11.0"}}
        write(self.folder / place / "scores/scores.parquet", [score(20, fd)], SCORES, about)
        second = (curves(0, "training-inputs"), trends("training-inputs", "horizontal")) if own else ([], [])
        write(self.folder / place / "errors/errors.parquet", curves(above) + second[0], ERRORS, about)
        write(self.folder / place / "errors/trends.parquet", trends() + second[1], TRENDS, about)
        shares = influences(0.5 if method == "other" else 1.0)
        write(self.folder / place / "errors/influences.parquet", shares, INFLUENCES, about)

    def dissect(self, method: str, seed: int) -> None:
        """The anatomy of what `draw` has drawn."""
        place = f"digits/{method}/base/s{seed}/ancestral"
        about = {"stage": "errors", "versions": {"torch": "2.11.0"}}
        write(self.folder / place / "errors/anatomy.parquet", anatomy(1 + seed), ANATOMY, about)

    def fail(self, place: str, sentence: str = SENTENCE) -> None:
        """The marker and the log of a stage that failed."""
        write_json(self.folder / place / "failed.json", {"key": "k", "code": 70, "sentence": sentence})
        (self.folder / place / "log.txt").write_text("12:00:00 it went wrong\n")

    def manifest(
        self, place: str, facts: dict[str, Any], files: list[str], history: list[dict[str, Any]] | None = None
    ) -> None:
        """A store entry with the files, and the manifest in the stage's folder."""
        store = entry(place.split("/")[-1], 1, {"place": place})
        for name in files:
            (store.folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".png"):
                _grid(store.folder / name, len(place))
            elif name.endswith(".npy"):
                np.save(store.folder / name, np.full((36, 1, 8, 8), len(place), np.uint8))
            else:
                write(store.folder / name, history or [], HISTORY)
        store.folder.mkdir(parents=True, exist_ok=True)
        store.finish(files, facts).save(self.folder / place / "manifest.json")

    def complete(self) -> "Tree":
        """Everything done: FD 3 and 5 for ddpm, 4 and 4 for other; 3 and 1 of 4 steps above the null."""
        self.dataset()
        for seed in {one["seed"] for one in self.experiment["instances"]}:
            for method in ("ddpm", "other"):
                self.train(method, seed)
            self.draw("ddpm", seed, 3.0 + 2 * seed, 3)
            self.draw("other", seed, 4.0, 1)
        return self


def score(nfe: int, value: float) -> dict[str, Any]:
    """One row of a scores record."""
    return {
        "nfe": nfe,
        "metric": "FD (classifier-digits)",
        "value": value,
        "status": "done",
        "note": "",
        "extractor": "classifier-digits",
        "library": "pipeline_lib 0.1.0",
        "samples": 100,
    }


def curves(above: int, law: str = "marginal") -> list[dict[str, Any]]:
    """Error rows of two kernels and two bandwidths, of which the last `above` steps exceed the null's 0.01.

    Against training inputs there is no row at the last step, where t is 0.
    """
    rows = []
    steps = STEPS if law == "marginal" else STEPS[:-1]
    for kernel in ("laplace", "gaussian"):
        for bandwidth in ("shared", "per-t"):
            for place, step in enumerate(steps):
                mmd2 = 0.02 + 0.001 * place if place > len(STEPS) - 1 - above else 0.001 * place
                rows.append(
                    {
                        "nfe": 20,
                        "kernel": kernel,
                        "bandwidth": bandwidth,
                        "law": law,
                        "statistic": "u",
                        "step": step,
                        "t": 20.0 - step,
                        "log_snr": step - 10.0 if step < STEPS[-1] else np.inf,
                        "mmd2": mmd2,
                        "se": 0.001,
                        "low": mmd2 - 0.002,
                        "high": mmd2 + 0.002,
                        "null_quantile": 0.01,
                        "p_value": 0.01,
                        "n": 64,
                        "m": 64,
                        "confidence": 0.95,
                    }
                )
    return rows


def anatomy(factor: float) -> list[dict[str, Any]]:
    """A few measures at every step; values are `factor` times 0.1, 0.2, ... but for those of true x_t, which are 1."""

    def row(measure: str, reading: str, step: int, value: float, start: float | None = None) -> dict[str, Any]:
        about = {"measure": measure, "reading": reading, "start": start, "step": step, "t": 20.0 - step, "nfe": 20}
        return {
            **about,
            "value": value,
            "se": 0.1,
            "low": value - 0.2,
            "high": value + 0.2,
            "n": 64,
            "confidence": 0.95,
        }

    known = [
        ("eps-norm", "ratio", None),
        ("delta", "gap-chain", 1.0),
        ("delta", "gap-chain", 0.5),
        ("gain", "gain", 0.5),
    ]
    return [
        row(measure, reading, step, factor * 0.1 * place, start)
        for measure, reading, start in known
        for place, step in enumerate(STEPS, start=1)
        if start != 0.5 or step >= 10
    ]


def influences(scale: float) -> list[dict[str, Any]]:
    """Influences of one standard error in all, `scale` times 0.001: the same chains at all steps, in all runs."""
    common = np.where(np.arange(64) % 2, 1.0, -1.0)
    common *= scale * 0.001 * (63 / 2) ** 0.5
    return [
        {"nfe": 20, "kernel": k, "bandwidth": b, "step": step, "chains": common, "forward": common}
        for k in ("laplace", "gaussian")
        for b in ("shared", "per-t")
        for step in STEPS
    ]


def trends(law: str = "marginal", verdict: str = "grows") -> list[dict[str, Any]]:
    """Trend rows of both kernels."""
    of_curve = {"nfe": 20, "law": law, "confidence": 0.95, "verdict": verdict, "tolerance": 0.03}
    values = {
        "growth-ratio": (7.0, 5.0, 9.0),
        "rank-correlation": (0.7, 0.5, 0.8),
        "exponential-rate": (1.0, -0.5, 2.5),
        "fluctuation": (0.02, 0.017, 0.025),
    }
    return [
        {**of_curve, "kernel": k, "bandwidth": b, "trend": t, "value": v, "low": lo, "high": hi}
        for k in ("laplace", "gaussian")
        for b in ("shared", "per-t")
        for t, (v, lo, hi) in values.items()
    ]


def costs(stage: str, seconds: float) -> dict[str, Any]:
    """The content of a costs.json."""
    return {
        "stage": stage,
        "seconds": seconds,
        "segments": 2,
        "images": 1520.0,
        "images_per_second": 121.6,
        "device": "cpu",
    }


def _grid(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _values(seeds: list[int], checks: list[dict[str, Any]]) -> dict[str, Any]:
    methods = {"ddpm": {"label": "DDPM", "variants": {"base": {}}}}
    methods["other"] = {"label": "Other", "variants": {"base": {"control": "ddpm/base"}}}
    return {
        "experiment": "tiny",
        "title": "A tiny experiment",
        "seeds": seeds,
        "base": {"diffusion": {"timesteps": 20, "schedule": "cosine"}},
        "datasets": {"digits": {"recipe": "digits"}},
        "methods": {name: {"objective": "ddpm", **method} for name, method in methods.items()},
        "sampling": {"ancestral": {"sampler": {"name": "ancestral"}, "nfe": [20], "images": 100}},
        "errors": {"kernels": ["laplace", "gaussian"], "times": 5, "chains": 64},
        "checks": checks,
    }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tree]:
    """`tree(seeds=, checks=)` starts an empty results tree in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def build(seeds: tuple[int, ...] = (0, 1), checks: tuple[dict[str, Any], ...] = ()) -> Tree:
        return Tree(list(seeds), list(checks))

    return build
