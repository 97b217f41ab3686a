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
from pipeline_lib.training.identity import store_of
from pipeline_lib.training.lease import Holder, holder_of

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
    holder, history = holder_of(home), home / HISTORY
    if holder is None and not history.is_file():
        return None
    seen = _modified(home / "lease.json" if holder else history)
    return Unfinished(
        status=SCHEDULED if holder is None else KILLED if holder.dead else RUNNING,
        start_ms=min(round(1000 * holder.since) or seen, seen) if holder else seen,
        end_ms=seen if holder and holder.dead else None,
        history=history if history.is_file() else None,
        tags={"store": str(home)}
        | ({f"live.{k}": str(getattr(holder, k)) for k in ("job", "host", "step")} if holder else {}),
    )


def _live(holder: Holder | None) -> dict[str, str]:
    return {} if holder is None else {f"live.{key}": str(getattr(holder, key)) for key in ("job", "host", "step")}


def _home(
    folder: Path, one: Mapping[str, Any], experiment: Mapping[str, Any], config: Mapping[str, Any], data: Manifest
) -> Path | None:
    """The folder of the training in the store; None where what it starts from is not there, so that it cannot run."""
    try:
        if one["dataset"] in experiment["latent"]:
            data = Manifest.load(folder / one["dataset"] / "latents" / "manifest.json")
        start = Manifest.load(folder / one["init"] / "train" / "manifest.json") if one["init"] else None
    except BadData:
        return None
    return store_of(config, data, start).folder


def _modified(path: Path) -> int:
    return int(path.stat().st_mtime * 1000)
