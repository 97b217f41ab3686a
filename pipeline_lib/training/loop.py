"""The training loop: a function of configuration, data and seed that can stop after any step and go on bit by bit."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.layout import rows_at_once
from pipeline_lib.config.models import Run, Training
from pipeline_lib.data.prepared import Prepared, to_uint8
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.exits import BadConfig, Bug, TryAgain
from pipeline_lib.faults import no_gpu_memory
from pipeline_lib.networks import trained
from pipeline_lib.objectives import Objective
from pipeline_lib.parallel import ALONE, World
from pipeline_lib.records import tables
from pipeline_lib.records.costs import Segments, StepClock, Stopwatch
from pipeline_lib.records.progress import Progress
from pipeline_lib.training.batches import Batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.dropout import shared
from pipeline_lib.training.ema import Averages, Ema
from pipeline_lib.training.gradients import Part, gradients
from pipeline_lib.training.grids import Decode, save_samples
from pipeline_lib.training.lease import Lease
from pipeline_lib.training.stop import Stop
from pipeline_lib.training.update import Update

log = logging.getLogger(__name__)


class Trainer:
    """Everything that changes while training, and the step that changes it."""

    def __init__(
        self,
        run: Run,
        objective: Objective,
        data: Prepared,
        seed: int,
        folder: Path,
        device: torch.device,
        decode: Decode = to_uint8,
        world: World = ALONE,
        micro_batch: int | None = None,
    ) -> None:
        """`decode` makes uint8 images of samples, for grids. Raises BadConfig where the batch cannot be cut so."""
        self.run, self.objective, self.folder, self.device, self.seed = run, objective, folder, device, seed
        self.data, self.decode, self.world = data, decode, world
        share, rows = world.share(run.training.batch_size), rows_at_once(run, world.size, micro_batch)
        self.parts = [range(first, first + rows) for first in share[::rows]]
        self.denoiser: Denoiser = trained.build(run, data.shape, len(data.classes), seed).to(device)
        cut = rows < run.training.batch_size and device.type == "cpu" and run.network["dropout"]
        masks = shared(self.denoiser.network, run.training.batch_size) if cut else None
        self.gradients = gradients(run, objective, self.denoiser, device, masks)
        self.batches = Batches(data, run.training, seed, device)
        self.ema = Ema(self.denoiser.network, run.training)
        self.averages = Averages(self.denoiser.network, run.training)
        self.update = Update(self.denoiser.network, run.training)
        self.checkpoints = Checkpoints(folder)
        self.confirm: Callable[[], None] = lambda: None  # raises TryAgain where the folder is another trainer's by now
        self.history = History(run.training.batch_size)
        self.done = 0
        self.watch, self.clock, self.calls = Stopwatch("train"), StepClock(), 0
        self.segments = Segments(folder)

    def start_from(self, weights: Path) -> None:
        """Begin with the averaged weights of another training. Raises BadConfig where they do not fit the network."""
        other, _ = trained.load(weights, self.device)
        try:
            self.denoiser.network.load_state_dict(other.network.state_dict())
        except RuntimeError:
            raise BadConfig(f"the weights {weights} do not fit the network of this run (init_from).") from None
        self.ema = Ema(self.denoiser.network, self.run.training)
        self.averages = Averages(self.denoiser.network, self.run.training)
        log.info("starting from %s", weights)

    def fit(self, stop: Stop, lease: Lease, runtime: dict[str, Any]) -> None:
        """Train to the end, or save and raise TryAgain where `stop` says so."""
        total = self.run.training.steps
        self._resume()
        self.confirm = lease.confirm
        if self.world.leads:
            self.segments.begin(self.done, lease.reached, self.world.size)
        progress = Progress(log, "training", "steps", total, self.done)
        saved = time.monotonic()
        self.clock.begin(self.done, self.world.size)
        while self.done < total:
            self.step()
            self.clock.steps += 1
            lease.step = self.done
            reason, lost = self.meet(stop.reason(), lease.lost)
            if lost:
                raise TryAgain(f"another trainer took over {self.folder} while this one stood still; it leaves.")
            if self.done % runtime["log_every"] == 0 or self.done == total:
                self.history.flush(self.done)  # waits for the device
                self.compare()
                self.clock.close()
            progress.update(self.done, self.history.note())
            if self.done in self.run.training.snapshot_steps:
                self.keep()
            if self.world.leads and runtime["grid_every"] and self.done % runtime["grid_every"] == 0:
                self.grid(self.folder / "grids" / f"step-{self.done:07d}.png")
                self.clock.restart()
            if reason and self.done < total:
                self.save()
                raise TryAgain(f"stopped after step {self.done} of {total} because {reason}; the next attempt goes on.")
            if time.monotonic() - saved > 60 * runtime["checkpoint_minutes"]:
                self.save()
                saved = time.monotonic()
                self.clock.restart()

    def step(self) -> None:
        """One optimiser step on the global batch: parts of it one after the other, shares of it by all processes."""
        parts = self._differentiate()
        shown = {name: torch.stack([part.shown[name] for part in parts]).sum(0) for name in parts[0].shown}
        if hasattr(self.objective, "remember") and parts[0].seen is not None:
            self.objective.remember(self.world.gather(torch.cat([p.seen for p in parts if p.seen is not None])))
        self.world.add_([*self.gradients.held(), *shown.values()])
        norm = self.update.step(learning_rate(self.run.training, self.done))
        self.done += 1
        self.ema.update(self.done)
        self.averages.update(self.done)
        self.history.add({**shown, "gradient norm": norm})

    def _differentiate(self) -> list[Part]:
        """The gradients of this process's share, in smaller parts where it does not fit the GPU otherwise."""
        called = self.gradients.called
        while True:
            self.gradients.begin()
            try:
                return [self.gradients.add(self.batches.at(self.done, rows), rows) for rows in self.parts]
            except RuntimeError as error:
                if not no_gpu_memory(error):
                    raise
            self._halve()  # here, where what was raised holds no memory any more
            self.gradients.called = called

    def _halve(self) -> None:
        rows = len(self.parts[0]) // 2
        what = f"{len(self.parts[0])} images at once"
        try:
            rows_at_once(self.run, self.world.size, max(rows, 1))
        except BadConfig:
            rows = 0
        if not rows:
            advice = "and their number cannot be halved: take a smaller training.batch_size or network, or more GPUs"
            raise device.no_room(what, advice, self.device)
        log.warning("%s do not fit the GPU: it takes %d, which takes longer (runtime.micro_batch).", what, rows)
        self.gradients.forget()
        share = self.world.share(self.run.training.batch_size)
        self.parts = [range(first, first + rows) for first in share[::rows]]

    def meet(self, reason: str | None, lost: bool) -> tuple[str | None, bool]:
        """Between two steps: why all processes should stop now, if one should, and whether the lease is lost."""
        told, lost_by, called = self.world.total(reason is not None, lost, self.gradients.called)
        self.calls, self.gradients.called = self.calls + called, 0
        return reason or ("another of its processes was told to stop" if told else None), bool(lost_by)

    def costs(self) -> dict[str, Any]:
        """Seconds of a step, images through the network per training image, seconds up to each snapshot and on what,
        segments."""
        images = self.done * self.run.training.batch_size
        until = self.clock.elapsed(self.done)
        spent = {"gpu_seconds": until[-1]["seconds"], "device": until[-1]["device"], "host": until[-1]["host"]}
        marks = {"snapshots": until} if self.run.training.snapshots else {}
        segments = self.segments.costs(self.done)
        engine = {**self.gradients.facts(), "rows": len(self.parts[0]), "streamed": self.batches.streamed}
        known = {**spent, **marks, **segments, "engine": engine}
        return {**self.clock.medians(), "network_calls": self.calls / images, **known}

    def keep(self) -> None:
        """Write the averaged weights as a snapshot; the steps after a resume that repeats it write the same again."""
        self.check()  # waits for the device
        self.clock.close()
        if self.world.leads:
            self.confirm()
            path = self.folder / trained.snapshot_file(self.done)
            trained.save(path, self.ema.state, self.run, self.data.shape, len(self.data.classes), self.done)
        self.clock.mark(self.done)

    def save(self) -> None:
        """Write a checkpoint, and the history so far for who looks on; weights that are not finite never enter one."""
        self.check()
        if not self.world.leads:
            return
        self.confirm()
        self.write_history()
        self.checkpoints.save(
            {
                "done": self.done,
                "network": self.denoiser.network.state_dict(),
                "ema": self.ema.state,
                "averages": self.averages.state,
                "optimizer": self.update.state_dict(),
                "history": self.history.state(),
                "objective": self.objective.state() if hasattr(self.objective, "state") else {},
                "costs": self.watch.read(images=float(self.done * self.run.training.batch_size)),
                "step_seconds": self.clock.windows,
                "snapshots": self.clock.marks,
                "layouts": self.clock.layouts,
                "network_calls": self.calls,
            },
            self.confirm,
        )

    def check(self) -> None:
        """Raise BadConfig if the loss or a weight has ceased to be finite."""
        self.history.check()
        if not all(bool(p.isfinite().all()) for p in self.denoiser.network.parameters()):
            raise _diverged("a weight", self.done)

    def compare(self) -> None:
        """Raise Bug if the processes' weights have ceased to be equal: no sum over them would mean anything."""
        if self.world.size > 1:
            own = torch.stack([p.detach().double().sum() for p in self.denoiser.network.parameters()])
            of_all = self.world.gather(own[None])
            if not torch.equal(of_all, own.expand_as(of_all)):
                raise Bug(f"the weights of the processes differ after step {self.done}.")

    def write_history(self) -> None:
        """Write history.parquet."""
        tables.write(self.folder / "history.parquet", self.history.rows, tables.HISTORY)

    def grid(self, path: Path) -> None:
        """Draw a sample grid with the averaged weights, always from the same noise; a classifier draws none."""
        if self.run.classifies:
            return
        with self.ema.swapped_in():
            save_samples(self.denoiser, self.batches, path, self.decode)

    def _resume(self) -> None:
        state = self.checkpoints.load(self.device)
        found = state["done"] if state else 0
        if self.world.total(found)[0] != self.world.size * found:
            raise TryAgain(f"the processes do not see the same checkpoint in {self.folder}; try again in a moment.")
        if state is None:
            return
        self.done = state["done"]
        self.denoiser.network.load_state_dict(state["network"])
        self.ema.load(state["ema"])
        self.averages.load(state.get("averages", {}))
        self.update.load_state_dict(state["optimizer"])
        self.history.load(state["history"])
        if hasattr(self.objective, "load"):
            self.objective.load(state["objective"])
        self.watch = Stopwatch("train", state["costs"])
        self.clock = StepClock(state["step_seconds"], state.get("snapshots"), state.get("layouts"))
        self.calls = state["network_calls"]
        log.info("going on after step %d", self.done)


def learning_rate(config: Training, done: int) -> float:
    """Linear warm-up, then a constant rate or a linear fall to zero; `done` steps lie behind."""
    warm = min(1.0, (done + 1) / max(config.warmup_steps, 1))
    left = (config.steps - done) / max(config.steps - config.warmup_steps, 1)
    return config.lr * (min(warm, left) if config.lr_decay == "linear" else warm)


def _diverged(what: str, done: int | None) -> BadConfig:
    where = f" by step {done}" if done else ""
    return BadConfig(
        f"{what} is not finite{where}: the training diverged; lower training.lr or lengthen training.warmup_steps."
    )


class History:
    """Means of what is logged, without a host synchronisation in between; part of the checkpoint."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the values of one step."""
        for key, value in values.items():
            value = value.detach().to(torch.float64)
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.count += 1

    def check(self, done: int | None = None) -> None:
        """Raise BadConfig if the loss has ceased to be finite."""
        for key, value in self.sums.items():
            if not bool(torch.isfinite(value)):
                raise _diverged(f"the {key}", done)

    def flush(self, done: int) -> None:
        """Close the window that ends after `done` steps."""
        self.check(done)
        means = {key: float(value) / self.count for key, value in self.sums.items()}
        images = done * self.batch_size
        self.rows += [{"step": done, "images": images, "key": k, "value": v} for k, v in means.items()]
        self.sums, self.count = {}, 0

    def note(self) -> str:
        """The last loss, for the log."""
        last = next((r["value"] for r in reversed(self.rows) if r["key"] == "loss"), None)
        return "" if last is None else f"loss {last:.4g}"

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.rows, self.sums, self.count = state["rows"], state["sums"], state["count"]
