"""A lease on a training folder: a second trainer of the same run leaves instead of writing into it."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.exits import TryAgain
from pipeline_lib.records.files import write_json

BEAT = 10.0  # seconds between heartbeats
STALE = 120.0  # a lease without a heartbeat for this long is dead, wherever its holder ran
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and `since` when, in Unix seconds (0: not said): `age` is in seconds since the last heartbeat,
    `dead` whether the next trainer may take it."""

    job: str
    host: str
    pid: int
    step: int
    since: float
    age: float
    dead: bool


def holder_of(folder: Path) -> Holder | None:
    """Who holds the lease on a training folder, for who looks on; None where nobody does, or nothing can be read."""
    path = folder / "lease.json"
    try:
        found = _read(path)
        age = max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None
    if found is None:
        return None
    about = {key: found[key] for key in ("job", "host", "pid", "step")}
    return Holder(**about, since=found.get("since", 0.0), age=age, dead=_dead(found, age, STALE))


class Lease:
    """Taken by `take` (or by `with`), renewed by a thread inside the `with`, given up at its end.

    A holder that stood still for too long may have been replaced: then `lost` is set, and it must leave.
    """

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self.beat, self.stale = folder / "lease.json", beat, stale
        self.step, self.lost, self.taken, self.since = 0, False, False, 0.0
        self.reached = 0  # the step at which a holder that died was last seen
        self.token = uuid.uuid4().hex
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        """Raises TryAgain where another trainer holds it, and OSError where the file system does not say who does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as now:
            holder = _read(self.path)
            if holder and not _dead(holder, now - self.path.stat().st_mtime, self.stale):
                raise TryAgain(
                    f"another trainer (job {holder['job']}, process {holder['pid']} on {holder['host']}, heartbeat "
                    f"{now - self.path.stat().st_mtime:.0f} s ago) holds {self.path.parent}; this one leaves it alone."
                )
            self.reached = holder["step"] if holder else 0
            self.since = time.time()
            self._write()
        self.taken = True

    def __enter__(self) -> "Lease":
        if not self.taken:
            self.take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        with self._locked():
            if self._mine():
                self.path.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Renew it now. Raises TryAgain where another trainer has taken it: who stood still for long has not noticed
        yet, and asks before it writes. Raises OSError where the file system does not say who holds it: it is not lost.
        """
        with self._locked():
            if not self._mine():
                self.lost = True
                raise TryAgain(f"another trainer took over {self.path.parent} while this one stood still; it leaves.")
            self._write()

    def _mine(self) -> bool:
        holder = _read(self.path)
        return holder is not None and holder.get("token") == self.token

    def _renew(self) -> None:
        while not self._done.wait(self.beat):
            try:
                self.confirm()
            except (OSError, TryAgain) as error:  # a full disk must not end the training from a side thread
                if self.lost:
                    return
                log.warning("the lease could not be renewed (%s)", error)

    def _write(self) -> None:
        write_json(
            self.path,
            {
                "job": os.environ.get("SLURM_JOB_ID", "local"),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                **process(os.getpid()),
                "token": self.token,
                "step": self.step,
                "since": self.since,
            },
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[float]:
        """The few lines that look and take must not run twice at once.

        Yields the time of the file system, which all hosts share, unlike their clocks.
        """
        path = self.path.with_suffix(".lock")
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.write("locked")
            handle.flush()
            yield path.stat().st_mtime


def process(pid: int) -> dict[str, str | None]:
    """What tells a process of this number from all others: boot of the machine, namespace of its numbers, time of its
    start in clock ticks since the boot. None: the system does not say, or for the start, no such process runs."""
    return {"boot": _boot(), "namespace": _namespace(), "started": _started(pid)}


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """proc(5): field 22; the second, a name in brackets, may hold anything, and the third is Z or X of the dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _dead(holder: dict[str, Any], age: float, stale: float) -> bool:
    return age > stale or _gone(holder)


def _gone(holder: dict[str, Any]) -> bool:
    """Whether its process has ended. False where that cannot be told: on another host, whatever its name, or in another
    container, the same number is another process."""
    here = process(holder["pid"])
    if not all(here[key] and here[key] == holder.get(key) for key in ("boot", "namespace")):
        return False
    if here["started"] is None and _hidden(holder["pid"]):
        return False
    return here["started"] != holder.get("started")


def _hidden(pid: int) -> bool:
    """Whether there is such a process, of another user, whom /proc does not show (its option hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """What a lease says; None where there is none. Raises OSError where the file system does not tell."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
