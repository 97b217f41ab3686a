"""The moments stage: what a sampler must know of a trained run beside its network, measured on training images."""

import json
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
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadData
from pipeline_lib.networks import trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch, total
from pipeline_lib.records.files import sha256, write_json
from pipeline_lib.records.store import Manifest, alone, entry
from pipeline_lib.samplers import clip_x0

VERSION = 2
log = logging.getLogger(__name__)


def file(nfe: int) -> str:
    """Where what was measured for so many calls lies in the folder of a sampling's moments."""
    return f"nfe{nfe:04d}/moments.parquet"


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, train: Manifest, data: Manifest) -> None:
    """Measure at every t that the sampling visits, unless it was done before, and write the manifest.

    Each number of calls has a file of its own, and none is part of the fingerprint: another one leaves all that
    follows from the others as it is. `config` holds spacing, nfe, seed, clip_x0, sampler and the corrections that ask;
    the largest `images` of those who ask says how many training images are used.
    """
    sampling = parse(Sampling, config)
    weights = trained.weights_file(sampling.weights)
    images = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    shared = {k: v for k, v in config.items() if k != "nfe"}
    store = entry("moments", VERSION, shared, {"weights": train.files[weights], **images})
    where, prepared = device.pick(), Prepared(data)
    denoiser, facts = trained.ready(train.file(weights), where, sampling.precision)
    count = min(max(part["images"] for kind, part in _parts(sampling) if unmeasured(kind, part)), len(prepared))
    conditional = facts["run"]["network"]["conditional"]

    def make(nfe: int, path: Path) -> dict[str, float | None]:
        watch = Stopwatch("moments")
        log.info("%d calls: measuring %d images at every t that is visited", nfe, count)
        one = sampling.model_copy(update={"nfe": [nfe]})
        rows = measure(denoiser, prepared, one, count, runtime["batch"], where, conditional)
        made_from = provenance.of("moments", VERSION, {**shared, "nfe": [nfe]}, {"train": train, "data": data})
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write(path, rows, tables.MOMENTS, made_from)
        return {**watch.spent(), "images": float(count * len(rows))}

    costs: list[dict[str, float | None]] = []
    for nfe in sampling.nfe:
        path = store.folder / file(nfe)
        done = path.with_name("done.json")
        with alone(path.parent):
            if not done.is_file():
                write_json(done, make(nfe, path))
        costs.append(json.loads(done.read_text()))
    write_json(store.folder / "identity.json", store.identity)
    images_seen = float(sum(one["images"] or 0 for one in costs))
    Stopwatch("moments", {**total(costs), "segments": 0}).save(output.parent, images=images_seen)
    files = {file(nfe): sha256(store.folder / file(nfe)) for nfe in sampling.nfe}
    Manifest("moments", store.fingerprint, str(store.folder), files, {"images": count}).save(output)


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


def known(sampling: Sampling, moments: Manifest | None, nfe: int) -> Sampling:
    """The sampling, whose sampler and corrections are told what they need at so many calls, and nothing of other t, on
    which samples would seem to depend; options that are given are left alone.

    Raises BadData where nothing was measured for so many calls.
    """
    if moments is None:
        return sampling
    if file(nfe) not in moments.files:
        raise BadData(f"the moments in {moments.folder} have no {file(nfe)}; run the moments stage again.")
    rows = tables.read(moments.file(file(nfe)), tables.MOMENTS)

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
