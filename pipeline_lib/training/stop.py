"""When to stop: a wall-clock budget, since on many clusters no warning reaches the process, and SIGTERM or SIGINT."""

import signal
import time
from types import FrameType


def usable(max_minutes: float) -> float:
    """Minutes of a job in which it trains: a tenth, at most three, are kept for the last checkpoint."""
    return max_minutes - min(3.0, max_minutes / 10)


class Stop:
    """Asked at every step."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * usable(max_minutes)
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
