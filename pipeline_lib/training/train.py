"""The train stage: finds a finished training in the store, or trains under a lease until it is done or time is up."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib import device
from pipeline_lib.config.base import load_part, parse
from pipeline_lib.config.models import EMA, Run
from pipeline_lib.data.prepared import Prepared, to_uint8
from pipeline_lib.exits import TryAgain
from pipeline_lib.networks import WEIGHTS, latent_space, trained
from pipeline_lib.objectives import Objective
from pipeline_lib.parallel import ALONE, World, join
from pipeline_lib.records.logs import kept
from pipeline_lib.records.store import Entry, Manifest
from pipeline_lib.training.identity import store_of
from pipeline_lib.training.lease import Lease
from pipeline_lib.training.loop import Trainer
from pipeline_lib.training.stop import Stop

LEAVE, MAKE = 0, 1  # what the first process says to the others
log = logging.getLogger(__name__)


def objective(run: Run) -> Objective:
    """The objective of a run."""
    module, options = load_part("objectives", run.objective)
    return module.build(options)


def run(
    config: Mapping[str, Any],
    runtime: dict[str, Any],
    output: Path,
    data: Manifest,
    init: Manifest | None = None,
    autoencoder: Manifest | None = None,
    max_minutes: float | None = None,
) -> None:
    """Train, or go on, or find what was trained before; write the manifest. All processes of the job call it.

    `init`: a training to start from. `autoencoder`: what made the latents in `data`; grids show its images.
    """
    store = store_of(config, data, init)
    with join() as world:

        def make(stop: Stop, lease: Lease) -> Manifest | None:
            return _train(config, runtime, store, data, init, autoencoder, stop, lease, world)

        if manifest := obtain(store, max_minutes, make, world):
            manifest.publish(output)


def obtain(
    store: Entry, max_minutes: float | None, make: Callable[[Stop, Lease], Manifest | None], world: World = ALONE
) -> Manifest | None:
    """The manifest of a finished training, or what `make` ends with, which trains under a lease until it is stopped.

    The first process decides and holds the lease; the others make what it makes, and get None.
    """
    stop = Stop(max_minutes)
    if not world.leads:
        return make(stop.listen(), Lease(store.folder)) if world.told() else None
    manifest = store.finished()
    if manifest is None:
        with waiting(store.folder, stop.listen()) as lease, kept(store.folder / "log.txt"):
            manifest = store.finished()
            if manifest is None:
                world.told(MAKE)
                return make(stop, lease)
    log.info("trained before: found in %s", store.folder)
    world.told(LEAVE)
    return manifest


@contextlib.contextmanager
def waiting(folder: Path, stop: Stop, every: float = 2.0) -> Iterator[Lease]:
    """The lease on a folder, once its holder has left: two equal trainings of an experiment are trained once.

    Raises TryAgain, which names the holder, where `stop` says so before.
    """
    lease, told = Lease(folder), False
    while not lease.taken:
        try:
            lease.take()
        except TryAgain as held:
            if stop.reason():
                raise
            if not told:
                log.info("%s Waiting for it.", held)
            told = True
            time.sleep(every)
    with lease:
        yield lease


def _train(
    config: Mapping[str, Any],
    runtime: dict[str, Any],
    store: Entry,
    data: Manifest,
    init: Manifest | None,
    autoencoder: Manifest | None,
    stop: Stop,
    lease: Lease,
    world: World,
) -> Manifest | None:
    one, where = parse(Run, {k: v for k, v in config.items() if k != "seed"}), device.pick()
    torch.set_num_threads(one.training.threads)
    decode = latent_space.load(autoencoder, where).decode if autoencoder else to_uint8
    micro = runtime.get("micro_batch")
    trainer = Trainer(
        one, objective(one), Prepared(data), config["seed"], store.folder, where, decode, world=world, micro_batch=micro
    )
    if init:
        trainer.start_from(init.file(WEIGHTS))
    trainer.fit(stop, lease, runtime)
    return _finish(trainer, store) if world.leads else None


def _finish(trainer: Trainer, store: Entry) -> Manifest:
    trainer.check()
    trainer.confirm()
    one, folder = trainer.run, store.folder
    shape, classes = trainer.data.shape, len(trainer.data.classes)
    averages = {EMA: trainer.ema.state, **trainer.averages.state}
    for name, weights in averages.items():
        trained.save(folder / trained.weights_file(name), weights, one, shape, classes, average=name)
    kept = map(trained.weights_file, averages)
    snapshots = one.training.snapshot_steps
    trainer.write_history()
    trainer.grid(folder / "grid.png")
    images = float(one.training.steps * one.training.batch_size)
    trainer.watch.save(folder, images, **trainer.costs(), processes=trainer.world.size)
    parameters = sum(p.numel() for p in trainer.denoiser.network.parameters())
    trainer.confirm()  # drawing takes a while
    manifest = store.finish(
        [*kept, *map(trained.snapshot_file, snapshots), "history.parquet", *([] if one.classifies else ["grid.png"])],
        {
            "steps": one.training.steps,
            "parameters": parameters,
            "shape": list(shape),
            **({"snapshots": snapshots} if snapshots else {}),
        },
    )
    trainer.checkpoints.delete()
    return manifest
