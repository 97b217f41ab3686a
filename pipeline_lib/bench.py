"""How fast the engine is here: training steps, sampling and the error curve, each beside its plain counterpart.

Plain is the same mathematics by torch's own operations, called one by one, in float32 as torch sets it (convolutions in
TF32): what public code for these methods does. Both are timed in one run, so that their ratio is worth something.
"""

import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline_lib import device, parallel
from pipeline_lib.config.base import parse
from pipeline_lib.config.load import merge
from pipeline_lib.config.models import Errors, Run
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.errors.cumulative import Comparison
from pipeline_lib.errors.forward import ForwardSamples
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.launch import launch
from pipeline_lib.networks import trained
from pipeline_lib.objectives import adm, ddpm, ddpm_reg, edm
from pipeline_lib.parallel import ALONE, World
from pipeline_lib.records import nvml
from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import Manifest
from pipeline_lib.training.loop import Trainer
from pipeline_lib.training.train import WEIGHTS, objective

log = logging.getLogger(__name__)
Row = dict[str, Any]

UNET = {"name": "unet", "channels": 128, "channel_mult": [1, 2, 2, 2], "res_blocks": 2, "attention_resolutions": [16]}
ADM = {
    "name": "adm",
    "channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "res_blocks": 3,
    "attention_resolutions": [16, 8],
    "head_channels": 32,
    "dropout": 0.3,
}
DDPMPP = {
    "name": "songunet",
    "channels": 128,
    "channel_mult": [2, 2, 2],
    "res_blocks": 4,
    "attention_resolutions": [16],
    "augment": True,
}
SMALL = {"name": "unet", "channels": 32, "channel_mult": [1, 2], "res_blocks": 1, "attention_resolutions": [4]}


@dataclass(frozen=True)
class Random(Prepared):
    """Images of random pixels: what is timed does not depend on them."""

    side: int = 32
    channels: int = 3

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 (N,C,H,W)."""
        shape = 10_000, self.channels, self.side, self.side
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @property
    def labels(self) -> None:
        """None."""
        return None


def run(output: Path, only: list[str], seconds: float) -> int:
    """Time everything, or `only` the rows whose names begin so, each for about `seconds`; print, and write JSON.

    Returns the exit code. Raises BadConfig where no row is left.
    """
    with parallel.join() as world:
        where = device.pick()
        torch.set_num_threads(1)  # as a training has them
        rows: list[Row] = []
        known = rows_of(where, seconds, world)
        for name, measure in known.items():
            if not only or any(name.startswith(one) for one in only):
                rows.append({"name": name, **measure()})
                log.info("%s", json.dumps(rows[-1]))
                if where.type == "cuda":
                    torch.cuda.empty_cache()
    if not rows:
        raise BadConfig(f"no row begins with {' or '.join(only)}; there are {', '.join(known)}.")
    if world.leads:
        write_json(output, {"machine": machine(where), "rows": _with_speedup(rows)})
        if world.size == 1:  # those of several processes are a row of the table of one
            table = pd.DataFrame(rows).dropna(axis="columns", how="all")
            print(table.to_string(index=False, na_rep="", float_format="{:,.4g}".format))
            print(f"written to {output}")
    return 0


def _with_speedup(rows: list[Row]) -> list[Row]:
    """Beside the row of several processes how many times the images of the row of one it does."""
    alone = next((row for row in rows if row["name"] == "train/ddpm"), None)
    for row in rows:
        if alone and row.get("processes", 1) > 1:
            row["times_one_process"] = row["images_per_second"] / alone["images_per_second"]
    return rows


def rows_of(where: torch.device, seconds: float, world: World = ALONE) -> dict[str, Callable[[], Row]]:
    """What is timed, by name; in one of several processes what they do together."""
    gpu = where.type == "cuda"
    net, data = (UNET, Random(_NOTHING)) if gpu else (SMALL, Random(_NOTHING, side=8, channels=1))
    batch = 128 if gpu else 64
    regularised = merge(ddpm_reg.PRESETS["paper"], {"training": {"mmd_group": batch}})
    training = {
        "train/ddpm": run_of("ddpm", ddpm.PRESETS["paper"], net, batch, gpu),
        "train/ddpm-reg": run_of("ddpm-reg", regularised, net, batch, gpu),
    }
    if gpu:
        training |= {
            "train/ddpm-batch-512": run_of("ddpm", ddpm.PRESETS["paper"], net, 512, gpu),
            "train/adm": run_of("adm", adm.PRESETS["paper"], ADM, 128, gpu),
            "train/edm": run_of("edm", edm.PRESETS["paper"], DDPMPP, 512, gpu),
        }
    sampled = training["train/ddpm"]
    if world.size > 1:
        share = run_of("ddpm", ddpm.PRESETS["paper"], net, batch * world.size, gpu)
        return {"train/ddpm": lambda: train(share, data, where, seconds, world)}
    processes = torch.cuda.device_count() if gpu else 2
    together = {f"train/ddpm-{processes}-processes": lambda: in_processes(processes, seconds)} if processes > 1 else {}
    many = [256, 1024, 2048] if gpu else [64, 256]
    return (
        {name: (lambda one=one: train(one, data, where, seconds)) for name, one in training.items()}
        | {f"network/ddpm-batch-{n}": (lambda n=n: sample(sampled, data, n, where, seconds)) for n in many}
        | {"errors/ddpm": lambda: errors(sampled, data, 1000 if gpu else 200, where, seconds)}
        | together
    )


def run_of(name: str, preset: dict[str, Any], network: dict[str, Any], batch: int, gpu: bool) -> Run:
    """A published preset on a network, in bfloat16 on a GPU."""
    own = {"objective": {"name": name}, "network": network}
    own["training"] = {"batch_size": batch, "precision": "bf16" if gpu else "float32"}
    return parse(Run, merge(preset, own))


def in_processes(count: int, seconds: float) -> Row:
    """The step of several processes, each with the batch of one, and each with a GPU of its own where there are any."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.json"
        code = launch(["bench", "--only", "train/ddpm", "--seconds", str(seconds), "--output", str(found)], count)
        if code:
            raise TryAgain(f"the bench in {count} processes ended with {code}; what it says stands above.")
        row = json.loads(found.read_text())["rows"][0]
    return {"processes": count, **{key: value for key, value in row.items() if key != "name"}}


def train(one: Run, data: Prepared, where: torch.device, seconds: float, world: World = ALONE) -> Row:
    """Optimiser steps: images a second, and seconds from nothing to the first step and to full speed."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trainer = Trainer(one, objective(one), data, 0, Path(folder), where, world=world)
        trainer.step()
        _wait(where)
        first = time.perf_counter() - start
        while any(world.total(getattr(trainer.gradients, "records", False) and trainer.gradients.recorded < 1)):
            trainer.step()  # all processes, as long as one has not recorded its own: they make every step together
        _wait(where)
        ready = time.perf_counter() - start
        for _ in range(60 if one.training.mmd_group and where.type == "cuda" else 3):  # until every plan is recorded
            trainer.step()
        own = _each(trainer.step, where, seconds, world=world)
        memory = _memory(where)
        row: Row = {"batch": one.training.batch_size, "parameters": sum(p.numel() for p in trainer.gradients.weights)}
        row |= {"images_per_second": one.training.batch_size / own, "ms": 1e3 * own, "memory_gib": memory}
        row |= {"first_step_s": first, "full_speed_s": ready}
        if where.type == "cuda" and world.size == 1:
            del trainer
            usual = one.model_copy(update={"training": one.training.model_copy(update={"precision": "tf32"})})
            with device.plain():
                trainer = Trainer(usual, objective(usual), data, 0, Path(folder), where)
                _as_torch_does()
                for _ in range(3):
                    trainer.step()
                row |= _beside(own, _each(trainer.step, where, seconds))
    return row


def sample(one: Run, data: Prepared, count: int, where: torch.device, seconds: float) -> Row:
    """Network calls without gradients, which is what sampling takes: images times steps a second."""
    own, usual = (_each(_call(one, data, count, where, fast), where, seconds) for fast in (True, False))
    return {"batch": count, "image_steps_per_second": count / own, "ms": 1e3 * own, **_beside(own, usual)}


def errors(one: Run, data: Prepared, count: int, where: torch.device, seconds: float) -> Row:
    """The MMD curve at every t, three kernels: what a point adds to the sampling step that it watches."""
    path = _denoiser(one, data, where, fast=True).path
    grid = path.grid(1000)
    settings = parse(Errors, {"chains": count, "times": "every", "null_times": 0})
    forward = ForwardSamples(data, count, 0, 0, where, path)
    frozen = Bandwidths(list(range(-20, 21)), [1.0] * 41, 1.0, 1.0, 0.25, count)
    comparison, x = Comparison(grid, [forward], frozen, settings), torch.randn(count, *data.shape, device=where)
    place = iter(range(1000))
    call = _call(one, data, count, where, True)

    def watched() -> None:
        call()
        comparison.see(next(place), x)

    for _ in range(3):
        watched()
    step, both = _each(call, where, seconds), _each(watched, where, seconds, 400)
    added = both - step
    return {"chains": count, "ms": 1e3 * added, "sampling_step_ms": 1e3 * step, "share_of_sampling": added / step}


def _denoiser(one: Run, data: Prepared, where: torch.device, fast: bool) -> Denoiser:
    with tempfile.TemporaryDirectory() as folder:
        built, path = trained.build(one, data.shape, 0), Path(folder) / WEIGHTS
        trained.save(path, built.network.state_dict(), one, data.shape, 0)
        return trained.ready(path, where, one.training.precision)[0] if fast else trained.load(path, where)[0]


def _call(one: Run, data: Prepared, count: int, where: torch.device, fast: bool) -> Callable[[], None]:
    denoiser = _denoiser(one, data, where, fast)
    x, t = torch.randn(count, *data.shape, device=where), torch.full((count,), 500.0, device=where)

    def call() -> None:
        with torch.no_grad(), nullcontext() if fast else device.plain():
            denoiser(x, t)

    if not fast:
        _as_torch_does()
    for _ in range(4):
        call()
    return call


def _as_torch_does() -> None:
    """Convolutions in TF32, products of matrices not."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def _each(
    what: Callable[[], object], where: torch.device, seconds: float, most: int = 1000, world: World = ALONE
) -> float:
    """Seconds of a call, the mean over about so many seconds; all processes make equally many."""
    _wait(where)
    start, count, more = time.perf_counter(), 0, 1
    while more and count < most:
        for _ in range(5):
            what()
        count += 5
        _wait(where)
        more = world.told(int(time.perf_counter() - start < seconds))
    return (time.perf_counter() - start) / count


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize()


def _memory(where: torch.device) -> float | None:
    return torch.cuda.max_memory_reserved() / 2**30 if where.type == "cuda" else None


def _beside(own: float, usual: float) -> Row:
    return {"plain_ms": 1e3 * usual, "times_plain": usual / own}


def machine(where: torch.device) -> Row:
    """What it was measured on."""
    found: Row = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_threads": torch.get_num_threads(),
    }
    if where.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "gpus": torch.cuda.device_count(),
            "driver": nvml.version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


_NOTHING = Manifest("data", "", "", {}, {"classes": [], "count": 10_000})
