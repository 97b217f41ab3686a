"""Which training a configuration asks for, and how far it is: its place in the store, known without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.networks import WEIGHTS
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.training.lease import holder_of

SAVED = re.compile(r"(?:stopped|going on) after step (\d+)")  # what the log says of a checkpoint
VERSION = 4  # bump when the code changes what a training ends with


def store_of(config: Mapping[str, Any], data: Manifest, init: Manifest | None = None) -> Entry:
    """The entry of a training on `data`, which holds images or latents, that starts from `init` or from nothing."""
    inputs = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    if init:
        inputs["init"] = init.files[WEIGHTS]
    return entry("train", VERSION, config, inputs)


def steps_done(folder: Path) -> int:
    """Steps of a training that has not ended which need not be done again: while somebody trains it, those up to the
    last heartbeat; else those in its checkpoint, up to `log_every` fewer where a kill left only its history to tell."""
    holder = holder_of(folder)
    if holder and not holder.dead:
        return holder.step
    if not any(folder.glob("checkpoint*.pt")):
        return 0
    said = folder / "log.txt"
    told = SAVED.findall(said.read_text(errors="replace")) if said.is_file() else []
    return max(_written(folder / "history.parquet"), *map(int, told[-1:]), 0)


def _written(history: Path) -> int:
    """The last step of a history; 0 where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return max(pq.read_table(history, columns=["step"])["step"].to_pylist(), default=0)
    except (OSError, pa.ArrowException):
        return 0
