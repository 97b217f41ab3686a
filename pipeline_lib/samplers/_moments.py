"""The moments stage: what a sampler must know of a trained run beside its network, measured on training images."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib import device
from pipeline_lib.config.base import load_part, parse
from pipeline_lib.config.models import Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.denoiser import Denoising, perturb
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.networks import trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest, entry

VERSION = 1
WEIGHTS, FILE = "weights.safetensors", "moments.parquet"
log = logging.getLogger(__name__)


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, train: Manifest, data: Manifest) -> None:
    """Measure at every t that the sampling visits, unless it was done before, and write the manifest.

    `config` holds spacing, nfe, seed and sampler, whose option `images` says how many training images are used.
    """
    sampling = parse(Sampling, config)
    images = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    store = entry("moments", VERSION, config, {"weights": train.files[WEIGHTS], **images})

    def make() -> Manifest:
        watch, where = Stopwatch("moments"), device.pick()
        denoiser, facts = trained.load(train.file(WEIGHTS), where)
        _, options = load_part("samplers", sampling.sampler)
        prepared = Prepared(data)
        count = min(options.images, len(prepared))
        log.info("measuring %d images at every t that is visited", count)
        conditional = facts["run"]["network"]["conditional"]
        rows = measure(denoiser, prepared, sampling, count, runtime["batch"], where, conditional)
        made_from = provenance.of("moments", VERSION, config, {"train": train, "data": data})
        store.folder.mkdir(parents=True, exist_ok=True)
        tables.write(store.folder / FILE, rows, tables.MOMENTS, made_from)
        watch.save(store.folder, images=float(count * len(rows)))
        return store.finish([FILE], {"images": count})

    store.obtain(make).publish(output)


def measure(
    denoiser: Denoising,
    data: Prepared,
    sampling: Sampling,
    count: int,
    batch: int,
    where: torch.device | str = "cpu",
    conditional: bool = False,
) -> list[dict[str, Any]]:
    """Rows of `MOMENTS` at the times of all grids of the sampling, from the first `count` training images."""
    path, noise = denoiser.path, Noise(sampling.seed, where)
    grids = [path.grid(sampling.steps(nfe), sampling.spacing) for nfe in sampling.nfe]
    visited = {step.t: step for grid in grids for step in grid}
    rows = []
    for t in sorted(visited):
        squares = []
        for first in range(0, count, batch):
            chosen = slice(first, min(first + batch, count))
            index = torch.arange(chosen.start, chosen.stop, device=where)
            x0, times = data.floats(chosen, where), torch.full((len(index),), t, device=where)
            labels = (
                torch.from_numpy(data.labels[chosen]).to(where) if conditional and data.labels is not None else None
            )
            x = perturb(path, x0, times, path.eps(noise, Stream.MOMENTS, index, round(t), x0.shape[1:]))
            with torch.no_grad():
                squares.append(denoiser(x, times, labels).eps.flatten(1).double().square().mean(1))
        each = torch.cat(squares)
        step = visited[t]
        rows.append(
            {
                "t": t,
                "log_snr": log_snr(step.a, step.s),
                "gamma": float(each.mean()),
                "se": float(each.std()) / count**0.5,
                "n": count,
            }
        )
    return rows


def known(sampling: Sampling, moments: Manifest | None) -> Sampling:
    """The sampling, whose sampler is told the moments that it needs; options that give them are left alone."""
    if moments is None or sampling.sampler.get("gamma") is not None:
        return sampling
    rows = tables.read(moments.file(FILE), tables.MOMENTS)
    gamma = {round(t): value for t, value in zip(rows["t"], rows["gamma"], strict=True)}
    return sampling.model_copy(update={"sampler": {**sampling.sampler, "gamma": gamma}})
