"""How long a training step took before: finished trainings in results/store tell, for the hours that `plan` prints.

No torch. A step is that of an equal network, method, batch and image size, on the device that it was timed on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Run
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.costs import mixed
from pipeline_lib.records.files import digest
from pipeline_lib.records.store import STORE

Shape = tuple[int, int, int] | None
LAYOUT = ("batch_size", "precision", "threads", "mmd_group", "flip")  # of training: what a step computes


@dataclass(frozen=True)
class Hours:
    """Of trainings that were timed on one device: how many, wall hours times processes, and the steps' source."""

    device: str
    trainings: int
    hours: float
    measured: int  # finished trainings that the medians are from


def hours(runs: Iterable[tuple[Run, Shape, int]], processes: int) -> list[Hours]:
    """Hours by device of so many steps of each training whose step was timed; the others are in none of them."""
    known = steps(processes)
    found: dict[str, list[tuple[float, int]]] = {}
    for run, shape, left in runs:
        for device, seconds in known.get(_key(run, shape), {}).items():
            found.setdefault(device, []).append((left * processes * median(seconds) / 3600, len(seconds)))
    return [Hours(d, len(of), sum(h for h, _ in of), max(n for _, n in of)) for d, of in found.items()]


def steps(processes: int = 1) -> dict[str, dict[str, list[float]]]:
    """Seconds of a step of every finished training of so many processes, by what it computes and by device."""
    found: dict[str, dict[str, list[float]]] = {}
    for run, shape, costs in _finished():
        whole = costs.get("step_seconds") and not mixed(costs.get("device", ""))
        if whole and costs.get("processes", 1) == processes:
            found.setdefault(_key(run, shape), {}).setdefault(costs["device"], []).append(costs["step_seconds"])
    return found


def _finished() -> Iterator[tuple[Run, Shape, Mapping[str, Any]]]:
    for folder in sorted(STORE.glob("train-*")):
        try:
            identity, manifest, costs = (_json(folder / f"{n}.json") for n in ("identity", "manifest", "costs"))
            run = parse(Run, {k: v for k, v in identity["config"].items() if k != "seed"})
            yield run, tuple(manifest["facts"]["shape"]), costs
        except (OSError, ValueError, KeyError, PipelineError):
            continue  # of an earlier version, or not finished


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _key(run: Run, shape: Shape) -> str:
    """What a step computes: all but how many there are and with which learning rate."""
    values = run.model_dump(mode="json")
    layout = {name: values["training"].get(name) for name in LAYOUT}
    return digest({"shape": shape, "training": layout, **{k: values[k] for k in ("objective", "network", "diffusion")}})
