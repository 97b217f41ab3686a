"""What a stage cost: kept beside results, never inside a manifest or a record that is compared."""

import resource
import socket
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pipeline_lib.records.files import write_json


class Stopwatch:
    """Wall and CPU time, memory and device of one job, added to those of earlier segments of the same work."""

    def __init__(self, stage: str, before: dict[str, Any] | None = None) -> None:
        self.stage, self.before = stage, before or {}
        self.start, self.cpu_start = time.monotonic(), time.process_time()

    def read(self, images: float | None = None) -> dict[str, Any]:
        """The costs so far; `images` counts all segments."""
        seconds = self.before.get("seconds", 0.0) + time.monotonic() - self.start
        cpu = self.before.get("cpu_seconds", 0.0) + time.process_time() - self.cpu_start
        device, gpu_memory = _device()
        if gpu_memory is not None:
            gpu_memory = max(gpu_memory, self.before.get("peak_gpu_memory_mb") or 0.0)
        return {
            "stage": self.stage,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "segments": self.before.get("segments", 0) + 1,
            "images": images,
            "images_per_second": images / seconds if images else None,
            "peak_memory_mb": max(_resident(), self.before.get("peak_memory_mb", 0.0)),
            "peak_gpu_memory_mb": gpu_memory,
            "device": device,
            "host": socket.gethostname(),
        }

    def save(self, folder: Path, images: float | None = None, **more: Any) -> None:
        """Write costs.json into `folder`."""
        write_json(folder / "costs.json", self.read(images) | more)


class StepClock:
    """Wall and CPU seconds of a training step: medians over windows, so that a burst of a neighbour counts little.

    A window must begin and end with an idle device (where the loss was read), since steps on a GPU return early.
    """

    def __init__(self, windows: list[list[float]] | None = None, marks: list[list[int]] | None = None) -> None:
        self.windows = windows or []  # [wall, CPU] seconds a step, also of earlier segments
        self.marks = marks or []  # [steps done, windows before], at each snapshot
        self.restart()

    def restart(self) -> None:
        """Begin a window, and forget the one that something else than steps has interrupted."""
        self.steps, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

    def close(self) -> None:
        """End the window and begin the next."""
        if self.steps:
            spent = (time.perf_counter() - self.wall, time.process_time() - self.cpu)
            self.windows.append([seconds / self.steps for seconds in spent])
        self.restart()

    def mark(self, done: int) -> None:
        """Remember that a snapshot was taken here, and begin a new window after it."""
        self.marks.append([done, len(self.windows)])
        self.restart()

    def elapsed(self, done: int, processes: int = 1) -> list[dict[str, float | None]]:
        """Step and seconds of all processes up to each mark and to the end, `done`; None where nothing was timed.

        Between two marks, it is their steps times the median of the windows there, or of all where there is none: what
        else the job did (checkpoints, grids, waiting for a neighbour's burst) is no cost of the method.
        """
        found: list[dict[str, float | None]] = []
        total: float | None = 0.0
        for before, after in pairwise([[0, 0], *self.marks, [done, len(self.windows)]]):
            walls = [wall for wall, _ in self.windows[before[1] : after[1]] or self.windows]
            total = total + processes * (after[0] - before[0]) * median(walls) if walls and total is not None else None
            found.append({"step": after[0], "seconds": total})
        return found

    def medians(self) -> dict[str, float | None]:
        """Median wall and CPU seconds of a step; None before the first window."""
        walls, cpus = zip(*self.windows, strict=True) if self.windows else ((), ())
        return {
            "step_seconds": median(walls) if walls else None,
            "step_cpu_seconds": median(cpus) if cpus else None,
        }


def _resident() -> float:
    """Largest resident memory of this process in MB; the kernel counts in kB, that of macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _device() -> tuple[str, float | None]:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
    return "cpu", None
