"""Rate and time left of a long loop, as log lines."""

import logging
import time


class Progress:
    """Logs `name: done/total unit, rate, ETA` at most every `every` seconds, and at the end."""

    def __init__(self, log: logging.Logger, name: str, unit: str, total: int, done: int = 0, every: float = 10) -> None:
        self.log, self.name, self.unit, self.total, self.every = log, name, unit, total, every
        self.first, self.start = done, time.monotonic()
        self.shown = self.start

    def update(self, done: int, note: str = "") -> None:
        """Tell how far it is; most calls say nothing."""
        now = time.monotonic()
        if now - self.shown < self.every and done < self.total:
            return
        self.shown = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / max(rate, 1e-9)
        tail = f", {note}" if note else ""
        self.log.info(
            "%s: %d/%d %s, %.4g/s, %s left%s", self.name, done, self.total, self.unit, rate, duration(left), tail
        )


def duration(seconds: float) -> str:
    """Seconds as 45 s, 3 min 20 s or 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
