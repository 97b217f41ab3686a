"""What a stage cost: kept beside results, never inside a manifest or a record that is compared."""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pipeline_lib.records import nvml
from pipeline_lib.records.files import write_json

SPENT = ("seconds", "cpu_seconds", "gpu_hours", "energy_kwh")  # of a job, and summed over its segments
AND = " + "  # between the devices, or hosts, of one training
SHARED = " (shared)"  # after the name of a GPU on which others computed whenever a step was timed
OTHERS = "timed on a GPU that other processes used as well"  # why such seconds are not compared


def total(parts: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Sums of `SPENT`; None where a part does not know it."""
    listed = list(parts)
    known = {key: [float(part[key]) for part in listed if part.get(key) is not None] for key in SPENT}
    return {key: sum(values) if len(values) == len(listed) else None for key, values in known.items()}


def named(names: Iterable[str]) -> str:
    """Devices or hosts as one text, each once; some may be such texts themselves, and unknown ones are empty."""
    return AND.join(dict.fromkeys(one for text in names for one in text.split(AND) if one))


def mixed(text: str) -> bool:
    """Whether a text of `named` names several."""
    return AND in text


def crowded(text: str) -> bool:
    """Whether a text of `named` has a GPU that others used as well."""
    return SHARED in text


def where() -> dict[str, str | None]:
    """Host, driver and SLURM job of this process."""
    driver = nvml.version() if _cuda() else None
    return {"host": socket.gethostname(), "driver": driver, "job": os.environ.get("SLURM_JOB_ID")}


class Stopwatch:
    """Wall and CPU time, memory, energy and device of one job, added to those of earlier segments of the same work."""

    def __init__(self, stage: str, before: dict[str, Any] | None = None) -> None:
        self.stage, self.before = stage, before or {}
        self.start, self.cpu_start, self.joules = time.monotonic(), time.process_time(), nvml.energies()

    def read(self, images: float | None = None) -> dict[str, Any]:
        """The costs so far; `images` counts all segments."""
        spent = total([self.before, self.spent()]) if self.before else self.spent()
        seconds = spent["seconds"] or 0.0
        device, gpu_memory = _device()
        if gpu_memory is not None:
            gpu_memory = max(gpu_memory, self.before.get("peak_gpu_memory_mb") or 0.0)
        return {
            "stage": self.stage,
            **spent,
            "segments": self.before.get("segments", 0) + 1,
            "images": images,
            "images_per_second": images / seconds if images else None,
            "peak_memory_mb": max(_resident(), self.before.get("peak_memory_mb", 0.0)),
            "peak_gpu_memory_mb": gpu_memory,
            "device": device,
            **where(),
        }

    def spent(self) -> dict[str, float | None]:
        """`SPENT` of this segment."""
        seconds, processes = time.monotonic() - self.start, int(os.environ.get("WORLD_SIZE", "1"))
        return {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self.cpu_start,
            "gpu_hours": processes * seconds / 3600 if _cuda() else 0.0,
            "energy_kwh": self._energy(),
        }

    def _energy(self) -> float | None:
        """Of the GPUs of this job, whatever else used them; None: not known, as on several hosts. 0 without a GPU."""
        torch = _cuda()
        if torch is None:
            return 0.0
        names, now = _cards(torch), nvml.energies()
        if len(names) != int(os.environ.get("WORLD_SIZE", "1")):
            return None
        if any(name not in now or name not in self.joules for name in names):
            return None
        return sum(now[name] - self.joules[name] for name in names) / 3.6e6

    def save(self, folder: Path, images: float | None = None, **more: Any) -> None:
        """Write costs.json into `folder`."""
        write_json(folder / "costs.json", self.read(images) | more)


class Segments:
    """Every start of a training: a line in a file that outlives kills, as what is in a checkpoint does not."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "segments.jsonl"

    def begin(self, step: int, reached: int = 0, processes: int = 1) -> None:
        """So many processes go on after `step`, though the training was seen at `reached` before it was killed."""
        if step == 0 and reached == 0:
            self.path.unlink(missing_ok=True)  # of a training that was begun anew
        line = {
            "start": step,
            "lost": max(0, reached - step),
            "processes": processes,
            "device": _device()[0],
            **where(),
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def costs(self, done: int) -> dict[str, Any]:
        """Number of segments, steps that were done in vain, and of each segment where it began, ended and ran."""
        lines = [json.loads(line) for line in _lines(self.path) if line.endswith("}")]  # a kill may cut one short
        ends = [one["start"] + one["lost"] for one in lines[1:]] + [done]
        runs = [{**one, "end": end} for one, end in zip(lines, ends, strict=False)]
        return {"segments": len(lines), "lost_steps": sum(one["lost"] for one in lines), "runs": runs}


class StepClock:
    """Wall and CPU seconds of a training step: medians over windows, so that a burst of a neighbour counts little.

    A window must begin and end with an idle device (where the loss was read), since steps on a GPU return early.
    Where other processes computed on the GPU when it began or ended, it counts only if no other one of those that it
    is taken together with (between two snapshots, say) does.
    """

    def __init__(
        self,
        windows: list[list[Any]] | None = None,
        marks: list[list[int]] | None = None,
        layouts: list[dict[str, Any]] | None = None,
    ) -> None:
        self.windows = windows or []  # [wall, CPU] seconds a step and whether others computed, also of earlier segments
        self.marks = marks or []  # [steps done, windows before], at each snapshot
        self.layouts = layouts or []  # steps done, windows before; and the processes, device and host from then on
        self.restart()

    def begin(self, done: int, processes: int) -> None:
        """So many processes go on after `done` steps, on this device and host; begin a window."""
        layout = {"processes": processes, "device": _device()[0], "host": socket.gethostname()}
        if not self.layouts:  # the beginning, or a checkpoint of a version that kept none: taken for all of it
            self.layouts = [{"step": 0, "windows": 0, **layout}]
        elif any(self.layouts[-1][key] != value for key, value in layout.items()):
            self.layouts.append({"step": done, "windows": len(self.windows), **layout})
        self.restart()

    def restart(self) -> None:
        """Begin a window, and forget the one that something else than steps has interrupted."""
        self.shared = _others()
        self.steps, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

    def close(self) -> None:
        """End the window and begin the next."""
        if self.steps:
            spent = (time.perf_counter() - self.wall, time.process_time() - self.cpu)
            self.windows.append([*(seconds / self.steps for seconds in spent), self.shared or _others()])
        self.restart()

    def mark(self, done: int) -> None:
        """Remember that a snapshot was taken here, and begin a new window after it."""
        self.marks.append([done, len(self.windows)])
        self.restart()

    def elapsed(self, done: int) -> list[dict[str, Any]]:
        """Up to each mark and to the end, `done`: steps, seconds of all processes together (None where nothing was
        timed), and the devices and hosts that did them.

        Between two marks or changes of layout, the seconds are the steps there, times the median of the windows there
        (or of equal layouts, or of all, where there is none), times the processes: what else the job did (checkpoints,
        grids, waiting for a neighbour's burst) is no cost of the method. Neither is a neighbour on the GPU: its windows
        are left out, and where there are no others the device is called shared.
        """
        each = [window[0] * self._layout("windows", i)["processes"] for i, window in enumerate(self.windows)]
        ends = [*((step, windows) for step, windows in self.marks), (done, len(each))]
        cuts = sorted({*ends, *((layout["step"], layout["windows"]) for layout in self.layouts)})
        spent: dict[int, float | None] = {0: 0.0 if each else None}
        shared = {0: False}
        for (step, first), (after, last) in pairwise(cuts):
            timed = [*range(first, last)] or self._like(self._layout("step", step)) or [*range(len(each))]
            places = self._quiet(timed)
            before = spent[step]
            spent[after] = None if before is None else before + (after - step) * median(each[i] for i in places)
            shared[after] = shared[step] or any(self._shared(i) for i in places)
        found = []
        for step, _ in ends:
            known = [layout for layout in self.layouts if layout["step"] < step]
            names = {key: named(layout[key] for layout in known) for key in ("device", "host")}
            names["device"] += SHARED if shared[step] else ""
            found.append({"step": step, "seconds": spent[step], **names})
        return found

    def medians(self) -> dict[str, float | None]:
        """Median wall and CPU seconds of a step, in the last number of processes and device; None before a window."""
        same = [self.windows[i][:2] for i in self._quiet(self._like(self.layouts[-1]))]
        walls, cpus = zip(*same, strict=True) if same else ((), ())
        return {
            "step_seconds": median(walls) if walls else None,
            "step_cpu_seconds": median(cpus) if cpus else None,
        }

    def _shared(self, place: int) -> bool:
        return len(self.windows[place]) > 2 and self.windows[place][2]  # a version before did not look

    def _quiet(self, places: list[int]) -> list[int]:
        """Those of these windows in which no others computed; all, where there is none."""
        return [i for i in places if not self._shared(i)] or places

    def _layout(self, key: str, place: int) -> dict[str, Any]:
        """That of a window (`windows`), or of the steps after one (`step`)."""
        return next(layout for layout in reversed(self.layouts) if layout[key] <= place)

    def _like(self, layout: Mapping[str, Any]) -> list[int]:
        """Windows of as many processes on such a device."""
        timed = enumerate(self._layout("windows", i) for i in range(len(self.windows)))
        return [i for i, other in timed if all(other[key] == layout[key] for key in ("processes", "device"))]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _resident() -> float:
    """Largest resident memory of this process in MB; the kernel counts in kB, that of macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _cuda() -> Any:
    """torch, where it computes on a GPU in this process; else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _others() -> bool:
    """Whether other processes compute on a GPU of this job on this host, as far as the driver tells."""
    torch = _cuda()
    if torch is None:
        return False
    running = nvml.processes()
    return any(running.get(card, 1) > 1 for card in _cards(torch))


def _cards(torch: Any) -> list[str]:
    """UUIDs of the GPUs of this job on this host; of this process alone, where more are visible than it has."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    every = here > 1 and here == torch.cuda.device_count()
    mine = range(here) if every else [torch.cuda.current_device()]
    return [str(torch.cuda.get_device_properties(i).uuid) for i in mine]


def _device() -> tuple[str, float | None]:
    torch = _cuda()
    if torch is not None:
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
    return "cpu", None
