"""When to stop: a wall-clock budget, since on many clusters no warning reaches the process, and SIGTERM or SIGINT."""

import os
import re
import signal
import subprocess
import time
from types import FrameType


def usable(max_minutes: float) -> float:
    """Minutes of a job in which it trains: a tenth, at most three, are kept for the last checkpoint."""
    return max_minutes - min(3.0, max_minutes / 10)


def left_of_job() -> float | None:
    """Minutes until SLURM ends this job, whose clock began before this process; None outside of SLURM, or unknown."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    command = ["squeue", "--noheader", "--format=%L", "--jobs", job]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", told)  # 1-23:59:59; else UNLIMITED and the like
    if not found:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


class Stop:
    """Asked at every step. `max_minutes`: what the job may take from its start; in SLURM it says what is left."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * _budget(max_minutes)
        self.signal: str | None = None

    def listen(self) -> "Stop":
        """Let SIGTERM and SIGINT set a flag; nothing is done inside the handler."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def reason(self) -> str | None:
        """Why the job should stop now, or None."""
        if self.signal:
            return f"{self.signal} was received"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "the time limit is near"
        return None


def _budget(max_minutes: float) -> float:
    left = left_of_job()
    gone = 0.0 if left is None else max(0.0, max_minutes - left)
    return usable(max_minutes) - gone
