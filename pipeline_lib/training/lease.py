"""A lease on a training folder: a second trainer of the same run leaves instead of writing into it."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.exits import TryAgain
from pipeline_lib.records.files import write_json

BEAT = 10.0  # seconds between heartbeats
STALE = 120.0  # a lease without a heartbeat for this long is dead, wherever its holder ran
log = logging.getLogger(__name__)


class Lease:
    """Held from `__enter__` to `__exit__`; a thread renews the heartbeat. Raises TryAgain where another holds it."""

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self.beat, self.stale = folder / "lease.json", beat, stale
        self.step = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.with_suffix(".lock")):
            holder = _read(self.path)
            if holder and not self._dead(holder):
                age = time.time() - holder["heartbeat"]
                raise TryAgain(
                    f"another trainer (job {holder['job']}, process {holder['pid']} on {holder['host']}, heartbeat "
                    f"{age:.0f} s ago) holds {self.path.parent}; this one leaves it alone."
                )
            self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _dead(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == socket.gethostname() and not Path(f"/proc/{holder['pid']}").exists():
            return True
        return time.time() - holder["heartbeat"] > self.stale

    def _renew(self) -> None:
        while not self._done.wait(self.beat):
            try:
                self._write()
            except (OSError, TryAgain) as error:  # a full disk must not end the training from a side thread
                log.warning("the lease could not be renewed (%s)", error)

    def _write(self) -> None:
        write_json(
            self.path,
            {
                "job": os.environ.get("SLURM_JOB_ID", "local"),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "step": self.step,
                "heartbeat": time.time(),
            },
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The few lines that look and take must not run twice at once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
