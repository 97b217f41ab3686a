"""Trainings that are killed until they end: how, where, where the next process went on, and what they ended with.

Each attempt is a process of its own that runs the command `train`, forked so that torch is imported once.
"""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what an optimiser would import in every child

from pipeline_lib.__main__ import main
from pipeline_lib.records import files
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train  # noqa: F401  (so too)
from pipeline_lib.training.loop import Trainer
from tests.conftest import make_tiny_data, tiny_run, write_config

STEPS = 60
CONFIG = tiny_run(training={"steps": STEPS, "flip": True}, network={"dropout": 0.3})
RUNTIME = {"checkpoint_minutes": 0.002, "log_every": 5, "grid_every": 0}  # a checkpoint every 0.12 s: some steps
IN_WRITE, BETWEEN_RENAMES = "SIGKILL in a write", "SIGKILL between the renames"
TRACE, OUTPUT = Path("trace"), Path("run/manifest.json")


@dataclass(frozen=True)
class Kill:
    """What shall happen to an attempt."""

    kind: str
    wait: int  # step, or checkpoint, of this attempt that is hit; the first is 1
    delay: float | None = None  # seconds from the beginning of the step
    written: float | None = None  # share of the checkpoint's bytes


def draw(rng: np.random.Generator) -> Kill:
    """A kill of any kind, all equally likely."""
    kind = ("SIGTERM", "SIGKILL", IN_WRITE, BETWEEN_RENAMES)[rng.integers(4)]
    if kind == IN_WRITE:
        return Kill(kind, int(rng.integers(1, 3)), written=float(rng.uniform()))
    if kind == BETWEEN_RENAMES:
        return Kill(kind, int(rng.integers(1, 3)))
    return Kill(kind, int(rng.integers(1, 16)), delay=float(rng.uniform(0, 0.02)))


def faults(kills: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of `tables.FAULTS`, training after training, in the working folder."""
    torch.set_num_threads(1)  # before the forks: a pool of threads does not survive one
    make_tiny_data().save("data.json")
    write_config(OUTPUT.with_name("config.json"), "train", CONFIG, RUNTIME)
    attempt(None)
    whole, rng, count, training = _ended_with(), np.random.default_rng(seed), 0, 0
    while count < kills:
        training += 1
        rows = list(_one(rng, kills - count))
        ended = _ended_with()
        for row in rows:
            count += 1
            yield {"kill": count, "training": training, **row, "bit_equal": ended == whole}


def _one(rng: np.random.Generator, most: int) -> Iterator[dict[str, Any]]:
    """Kill a training until it ends, or `most` times."""
    row: dict[str, Any] = {}
    while True:
        kill = draw(rng) if most else None
        code, steps, was_hit = attempt(kill)
        if row:
            yield {**row, "resumed": steps[0] if steps else STEPS}
            row = {}
        if kill and was_hit:
            most -= 1
            told = {k: v for k, v in asdict(kill).items() if k != "wait"}
            row = {**told, "step": steps[-1] + 1 if steps else None, "exit_code": code}
        if code == 0:
            break
    if row:  # the signal came too late to stop it
        yield {**row, "resumed": STEPS}


def _ended_with() -> dict[str, str]:
    """Hashes of the files of the training that has ended, which is forgotten."""
    manifest = Manifest.load(OUTPUT)
    OUTPUT.unlink()
    shutil.rmtree(manifest.folder)
    return manifest.files


def attempt(kill: Kill | None) -> tuple[int, list[int], bool]:
    """A process that trains: exit code (negative: the signal that ended it), steps done before each step that it began,
    and whether it was hit.
    """
    TRACE.write_text("")
    child = os.fork()
    if child == 0:
        os._exit(_train(kill))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = TRACE.read_text().split()
    return code, [int(line) for line in lines if line != "hit"], "hit" in lines


def _train(kill: Kill | None) -> int:
    os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if kill and kill.kind == IN_WRITE:
        _hit_in_write(kill)
    elif kill and kill.kind == BETWEEN_RENAMES:
        _hit_between_renames(kill)
    _watch_steps(kill if kill and kill.delay is not None else None)
    return main(["train", "--config", "run/config.json", "--data", "data.json", "--output", str(OUTPUT)])


def _watch_steps(kill: Kill | None) -> None:
    step, begun = Trainer.step, 0

    def watched(self: Trainer) -> None:
        nonlocal begun
        begun += 1
        _note(self.done)
        if kill and begun == kill.wait:
            threading.Timer(kill.delay or 0.0, _hit, [signal.Signals[kill.kind]]).start()
        step(self)

    Trainer.step = watched  # type: ignore[method-assign]


def _hit_in_write(kill: Kill) -> None:
    save, count = torch.save, 0

    def cut(state: Any, stream: Any) -> None:
        nonlocal count
        count += 1
        if count < kill.wait:
            save(state, stream)
            return
        buffer = BytesIO()
        save(state, buffer)
        stream.write(buffer.getvalue()[: int((kill.written or 0.0) * buffer.tell())])
        stream.flush()
        _hit(signal.SIGKILL)

    torch.save = cut


def _hit_between_renames(kill: Kill) -> None:
    """`atomic` asks for fsync when the old checkpoint has its second name already, and the new one has none yet."""
    fsync, save, count = os.fsync, torch.save, 0

    def counted(state: Any, stream: Any) -> None:
        nonlocal count
        count += 1
        save(state, stream)

    def cut(handle: int) -> None:
        if count == kill.wait:
            _hit(signal.SIGKILL)
        fsync(handle)

    torch.save, files.os.fsync = counted, cut


def _hit(number: signal.Signals) -> None:
    _note("hit")
    os.kill(os.getpid(), number)


def _note(word: object) -> None:
    with TRACE.open("a") as stream:
        stream.write(f"{word}\n")
