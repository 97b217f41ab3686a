"""How far an experiment is: `status` reads results/ and nothing else, so it disturbs no job and needs no lock.

A training tells by its lease (step, heartbeat) and the log in its folder of the store; any other stage by the log
beside its output. Nothing here says what SLURM thinks of a job; `squeue --me` does.
"""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_lib import terminal
from pipeline_lib.records.progress import duration
from pipeline_lib.records.store import Manifest
from pipeline_lib.reporting.collect import Job, jobs, manifest, own_state
from pipeline_lib.training.identity import store_of
from pipeline_lib.training.lease import STALE, Holder, holder_of

SUBMITTED = "slurm-job.txt"  # as in cluster.executor
QUIET = 600.0  # seconds without a line in the log of a stage that has no heartbeat
TAIL = 8192  # bytes of a log that are read
ORDER = ("failed", "running", "silent", "stopped", "waiting", "pending")  # what a run shows first
PROGRESS = re.compile(r": (\d+)/(\d+) (\w+), ([\d.e+-]+)/s, ")
AFTER = re.compile(r"after step (\d+)")
HEAD = ("run", "jobs", "at", "state", "step", "rate", "left", "heartbeat", "job", "host")
Row = dict[str, Any]
Read = Callable[[str], Manifest | None]  # the manifest in a folder below the experiment


@dataclass(frozen=True)
class Progress:
    """One job of the plan.

    state: done; running; silent (it started, and has not been heard of for long); stopped (it left, and goes on at the
    next attempt); waiting (in SLURM's queue, as far as results/ tells); failed (for good); pending.
    """

    run: str
    stage: str
    state: str
    step: int | None = None
    steps: int | None = None
    unit: str = ""
    rate: float | None = None  # steps/s
    left: float | None = None  # seconds
    heartbeat: float | None = None  # seconds since the last sign of life
    job: str = ""
    host: str = ""
    sentence: str = ""
    log: str = ""


def run(folder: Path, experiment: Mapping[str, Any], as_json: bool = False) -> int:
    """Print how far the experiment in `folder` is."""
    found = measure(folder, experiment)
    if as_json:
        _write(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    counts = Counter(one.state for one in found)
    print(f"{folder.name}: {counts['done']} of {len(found)} jobs done{_others(counts)}")
    print()
    terminal.show(HEAD, [_row(name, of) for name, of in _by_run(found).items()], left=(0, 2, 3, 8, 9), colour=3)
    terminal.lines(_troubles(found))
    return 0


def _write(text: str) -> None:
    """To the terminal, or to a pipe whose reader (head, less) may leave when it has seen enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes it once more at its end


def measure(folder: Path, experiment: Mapping[str, Any]) -> list[Progress]:
    """Every job of the experiment, in the order of its plan; last those that a reader waits for."""
    read = cache(lambda place: manifest(folder, place))
    found = [_progress(folder, job, read) for job in jobs(experiment)]
    return [*found, *_endings(folder, experiment, all(one.state == "done" for one in found))]


def _endings(folder: Path, experiment: Mapping[str, Any], measured: bool) -> Iterator[Progress]:
    """Tables, figures, report and tracking, each by the last file that it writes.

    They are done of what is whole: those that are made after a failure, of a part, are not.
    """
    trained = bool(experiment["instances"])
    last = {
        "tables": ("tables/log.txt", "tables/samplings.md" if trained else "tables/theory.md"),
        "figures": ("figures/log.txt", "figures/training.png" if trained else "figures/theory.png"),
        "report": ("config/report-log.txt", "report.html"),
        "track": ("tracking/log.txt", "tracking/mlflow.json"),
    }
    for stage in last if experiment["tracking"]["enabled"] and trained else [s for s in last if s != "track"]:
        log, output = (folder / name for name in last[stage])
        known: Row = {"run": folder.name, "stage": stage, "sentence": "", "log": str(log) if log.is_file() else ""}
        if measured and not output.is_file():
            yield _other(known, log, log.parent / SUBMITTED)
        else:
            yield Progress(**known, state="done" if measured else "pending")


def _progress(folder: Path, job: Job, read: Read) -> Progress:
    place, stage = folder / job.place, job.place.rpartition("/")[2]
    sampler = job.identity.get("sampler")
    run = job.place.removesuffix(f"/{sampler}/{stage}") if sampler else job.place.removesuffix(f"/{stage}")
    name = f"{sampler}/{stage}" if sampler else stage
    own = own_state(folder, job.place)
    log = str(folder / own.log) if own.log else ""
    known: Row = {"run": run, "stage": name, "sentence": own.sentence, "log": log}
    if own.status in ("done", "failed"):
        return Progress(**known, state=own.status)
    known["job"] = _text(place / SUBMITTED).partition(" ")[0].strip()
    if stage == "train" and (store := _store(place, job, read)):
        return _training(known, place, store)
    return _other(known, place / "log.txt", place / SUBMITTED)


def _store(place: Path, job: Job, read: Read) -> Path | None:
    """Folder of a training in the store; None where what it starts from is not there yet."""
    try:
        config = json.loads((place / "config.json").read_text())["config"]
    except (OSError, ValueError, KeyError):
        return None
    starts = [at for at in job.inputs if at.endswith("/train")]
    data = read([at for at in job.inputs if at not in starts][-1])  # pixels, or latents if there are any
    start = read(starts[0]) if starts else None
    return None if data is None or (starts and start is None) else store_of(config, data, start).folder


def _training(known: Row, place: Path, store: Path) -> Progress:
    """A training that has not ended, by its lease and by what it said over all its jobs."""
    holder, path = holder_of(store), store / "log.txt"
    said = _text(path)
    if not said and holder is None:
        return _other(known, place / "log.txt", place / SUBMITTED)
    steps = json.loads((place / "config.json").read_text())["config"]["training"]["steps"]
    known |= {"log": str(path) if said else known["log"], "steps": steps, "unit": "steps"}
    rate = float(found[-1][3]) if (found := PROGRESS.findall(said)) else None
    if holder is None:
        return _left(known, said, place)
    known |= {"step": holder.step, "job": holder.job, "host": holder.host, "heartbeat": holder.age}
    if holder.dead:
        return Progress(**{**known, "sentence": _dead(holder)}, state="silent")
    left = (steps - holder.step) / rate if rate else None
    return Progress(**{**known, "sentence": ""}, state="running", rate=rate, left=left)


def _dead(holder: Holder) -> str:
    since = f"the last heartbeat is {duration(holder.age)} old"
    why = since if holder.age > STALE else f"process {holder.pid} on {holder.host} is gone"
    return f"{why}: the trainer died or its node hangs; the next attempt goes on from the last checkpoint"


def _left(known: Row, said: str, place: Path) -> Progress:
    """Nobody trains: it left with a checkpoint, or waits to be started again."""
    done = [int(step) for step in AFTER.findall(said)]
    state = "waiting" if _newer(place / SUBMITTED, place / "log.txt") else "stopped"
    return Progress(**{**known, "sentence": _last(said)}, state=state, step=done[-1] if done else None)


def _other(known: Row, path: Path, submitted: Path) -> Progress:
    """A stage without a heartbeat, by its log."""
    if not path.is_file() or _newer(submitted, path):
        return Progress(**known, state="waiting" if submitted.is_file() else "pending")
    said, age = _text(path), max(0.0, time.time() - path.stat().st_mtime)
    known |= {"heartbeat": age, "log": str(path)}
    if found := PROGRESS.findall(said):
        step, steps, unit, rate = found[-1]
        known |= {"step": int(step), "steps": int(steps), "unit": unit}
    if re.search(r"\d (stopped|error): ", _last_line(said)):
        return Progress(**{**known, "sentence": _last(said)}, state="stopped")
    if "another configuration" in known["sentence"]:
        return Progress(**{**known, "heartbeat": None}, state="pending")
    if age > QUIET:
        return Progress(**{**known, "sentence": f"its log is silent for {duration(age)}"}, state="silent")
    left = (int(steps) - int(step)) / float(rate) if found and float(rate) else None
    return Progress(**{**known, "sentence": ""}, state="running", rate=float(rate) if found else None, left=left)


def _newer(path: Path, other: Path) -> bool:
    return path.is_file() and (not other.is_file() or path.stat().st_mtime > other.stat().st_mtime)


def _text(path: Path) -> str:
    """The end of a file; empty where it is not there."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - TAIL))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def _last_line(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "")


def _last(said: str) -> str:
    """The last line without its time."""
    return re.sub(r"^[\d: ,-]+", "", _last_line(said)).strip()


def _by_run(found: list[Progress]) -> dict[str, list[Progress]]:
    runs: dict[str, list[Progress]] = {}
    for one in found:
        runs.setdefault(one.run, []).append(one)
    return runs


def _row(name: str, of: list[Progress]) -> list[str]:
    """A run by that of its jobs that tells most."""
    done = sum(one.state == "done" for one in of)
    shown = min((one for one in of if one.state != "done"), key=lambda one: ORDER.index(one.state), default=None)
    if shown is None:
        return [name, f"{done}/{len(of)}", "", "done", *[""] * 6]
    step = "" if shown.step is None else f"{shown.step:,}/{shown.steps:,}"
    rate = "" if shown.rate is None else f"{shown.rate:.3g} {shown.unit}/s"
    left, beat = ("" if s is None else duration(s) for s in (shown.left, shown.heartbeat))
    return [name, f"{done}/{len(of)}", shown.stage, shown.state, step, rate, left, beat, shown.job, shown.host]


def _others(counts: Mapping[str, int]) -> str:
    return "".join(f", {counts[state]} {state}" for state in ORDER if counts.get(state))


def _troubles(found: list[Progress]) -> Iterator[str]:
    """What went wrong, and where it is written."""
    for one in found:
        if one.state in ("failed", "silent", "stopped"):
            where = f" Log: {one.log}" if one.log else ""
            yield f"\n{one.run}/{one.stage} {one.state}: {one.sentence.rstrip('.')}.{where}"
