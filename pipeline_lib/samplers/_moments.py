"""The moments stage: what a sampler must know of a trained run beside its network, measured on training images."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.base import parse, unmeasured
from pipeline_lib.config.models import Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.denoiser import Denoising, perturb
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import GaussianPath, log_snr
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.networks import trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest, entry
from pipeline_lib.samplers import clip_x0

VERSION = 2
FILE = "moments.parquet"
log = logging.getLogger(__name__)


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, train: Manifest, data: Manifest) -> None:
    """Measure at every t that the sampling visits, unless it was done before, and write the manifest.

    `config` holds spacing, nfe, seed, clip_x0, sampler and the corrections that ask; the largest `images` of those who
    ask says how many training images are used.
    """
    sampling = parse(Sampling, config)
    weights = trained.weights_file(sampling.weights)
    images = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    store = entry("moments", VERSION, config, {"weights": train.files[weights], **images})

    def make() -> Manifest:
        watch, where = Stopwatch("moments"), device.pick()
        denoiser, facts = trained.ready(train.file(weights), where, sampling.precision)
        prepared = Prepared(data)
        count = min(max(part["images"] for kind, part in _parts(sampling) if unmeasured(kind, part)), len(prepared))
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
        squares, error, step = [], _Error(), visited[t]
        for first in range(0, count, batch):
            chosen = slice(first, min(first + batch, count))
            index = torch.arange(chosen.start, chosen.stop, device=where)
            x0, times = data.floats(chosen, where), torch.full((len(index),), t, device=where)
            labels = (
                torch.from_numpy(data.labels[chosen]).to(where) if conditional and data.labels is not None else None
            )
            x = perturb(path, x0, times, path.eps(noise, Stream.MOMENTS, index, round(t), x0.shape[1:]))
            with torch.no_grad():
                found = denoiser(x, times, labels)
                squares.append(found.eps.flatten(1).double().square().mean(1))
                error.add(x0, x, (clip_x0(found, step) if sampling.clip_x0 else found).x0)
        each = torch.cat(squares)
        rows.append(
            {
                "t": t,
                "log_snr": log_snr(step.a, step.s),
                "gamma": float(each.mean()),
                "se": float(each.std()) / count**0.5,
                **error.row(),
                "n": count,
            }
        )
    return rows


class _Error:
    """Moments of the error e of the predicted x_0 over images, each a mean over their values."""

    def __init__(self) -> None:
        self.count, self.sums = 0, torch.zeros(())

    def add(self, x0: Tensor, x: Tensor, predicted: Tensor) -> None:
        """Of images x_0, x_t and the predicted x_0, each (B,C,H,W)."""
        x0, x, predicted = (one.double() for one in (x0, x, predicted))
        error, both = predicted - x0, predicted + x0
        terms = torch.stack((error, both, x, error * error, error * both, error * x))
        self.count, self.sums = self.count + len(x0), self.sums.to(x0.device) + terms.sum(1)

    def row(self) -> dict[str, float]:
        """E e^2; Var(predicted) - Var(x_0) = Cov(e, predicted + x_0); Cov(e, x_t)."""
        error, both, x, squared, with_both, with_x = self.sums / self.count
        return {
            "x0_error": float(squared.mean()),
            "x0_excess": float((with_both - error * both).mean()),
            "x0_cross": float((with_x - error * x).mean()),
        }


def known(sampling: Sampling, moments: Manifest | None, path: GaussianPath, nfe: list[int]) -> Sampling:
    """The sampling, whose sampler and corrections are told what they need at so many calls, and nothing of other t, on
    which samples would seem to depend; options that are given are left alone."""
    if moments is None:
        return sampling
    rows = tables.read(moments.file(FILE), tables.MOMENTS)
    rows = rows[rows["t"].isin([step.t for n in nfe for step in path.grid(sampling.steps(n), sampling.spacing)])]

    def told(kind: str, part: Mapping[str, Any]) -> dict[str, Any]:
        columns = {name: rows[name] for name in unmeasured(kind, part)}
        times = [round(t) for t in rows["t"]]
        return {**part, **{name: dict(zip(times, values, strict=True)) for name, values in columns.items()}}

    (_, sampler), *corrections = _parts(sampling)
    return sampling.model_copy(
        update={"sampler": told("samplers", sampler), "corrections": [told(*one) for one in corrections]}
    )


def _parts(sampling: Sampling) -> list[tuple[str, dict[str, Any]]]:
    return [("samplers", sampling.sampler), *(("samplers/corrections", one) for one in sampling.corrections)]
