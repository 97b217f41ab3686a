"""Trainings that have not ended: what they have logged so far, and whether somebody works on them.

A training writes history.parquet at every checkpoint and renews its lease every few seconds; nothing else is asked of
it. Its processes never hear of MLflow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.exits import BadData
from pipeline_lib.records.store import Manifest
from pipeline_lib.training.lease import Lease
from pipeline_lib.training.place import place

RUNNING, SCHEDULED, KILLED = "RUNNING", "SCHEDULED", "KILLED"
HISTORY = "history.parquet"


@dataclass(frozen=True)
class Unfinished:
    """RUNNING: its lease has a heartbeat. KILLED: the heartbeat ceased, nobody gave the lease up. SCHEDULED: it left in
    order, and waits for its next job. `start_ms`, `end_ms`: Unix milliseconds, None where nobody can know."""

    status: str
    start_ms: int
    end_ms: int | None
    history: Path | None
    tags: dict[str, str]


def unfinished(
    folder: Path, one: Mapping[str, Any], experiment: Mapping[str, Any], config: Mapping[str, Any], data: Manifest
) -> Unfinished | None:
    """How far the training of an instance is; None where it never began. `data`: of its pixels."""
    home = _home(folder, one, experiment, config, data)
    if home is None or not home.is_dir():
        return None
    lease, history = Lease(home), home / HISTORY
    holder = lease.holder()
    if holder is None and not history.is_file():
        return None
    seen = _modified(lease.path if holder else history)
    return Unfinished(
        status=SCHEDULED if holder is None else RUNNING if holder["alive"] else KILLED,
        start_ms=min(round(1000 * holder["since"]), seen) if holder else seen,
        end_ms=seen if holder and not holder["alive"] else None,
        history=history if history.is_file() else None,
        tags={"store": str(home)} | ({f"live.{k}": str(holder[k]) for k in ("job", "host", "step")} if holder else {}),
    )


def _home(
    folder: Path, one: Mapping[str, Any], experiment: Mapping[str, Any], config: Mapping[str, Any], data: Manifest
) -> Path | None:
    """The folder of the training in the store; None where what it starts from is not there, so that it cannot run."""
    try:
        if one["dataset"] in experiment["latent"]:
            data = Manifest.load(folder / one["dataset"] / "latents" / "manifest.json")
        start = _weights(Manifest.load(folder / one["init"] / "train" / "manifest.json")) if one["init"] else None
    except BadData:
        return None
    return place(config, data, start).folder


def _weights(manifest: Manifest) -> str:
    from pipeline_lib.networks.trained import WEIGHTS  # torch

    return manifest.files[WEIGHTS]


def _modified(path: Path) -> int:
    return int(path.stat().st_mtime * 1000)
