"""What a stage cost: kept beside results, never inside a manifest or a record that is compared."""

import resource
import socket
import time
from pathlib import Path
from typing import Any

from pipeline_lib.records.files import write_json


class Stopwatch:
    """Wall time, memory and device of one job, added to those of earlier segments of the same work."""

    def __init__(self, stage: str, before: dict[str, Any] | None = None) -> None:
        self.stage, self.before, self.start = stage, before or {}, time.monotonic()

    def read(self, images: float | None = None) -> dict[str, Any]:
        """The costs so far; `images` counts all segments."""
        seconds = self.before.get("seconds", 0.0) + time.monotonic() - self.start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        device, gpu_memory = _device()
        if gpu_memory is not None:
            gpu_memory = max(gpu_memory, self.before.get("peak_gpu_memory_mb") or 0.0)
        return {
            "stage": self.stage,
            "seconds": seconds,
            "segments": self.before.get("segments", 0) + 1,
            "images": images,
            "images_per_second": images / seconds if images else None,
            "peak_memory_mb": max(memory, self.before.get("peak_memory_mb", 0.0)),
            "peak_gpu_memory_mb": gpu_memory,
            "device": device,
            "host": socket.gethostname(),
        }

    def save(self, folder: Path, images: float | None = None) -> None:
        """Write costs.json into `folder`."""
        write_json(folder / "costs.json", self.read(images))


def _device() -> tuple[str, float | None]:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
    return "cpu", None
