"""The sample stage: images from a trained run, a cell for each number of network calls."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.base import build_part, load_part, parse
from pipeline_lib.config.models import EMA, Sampling
from pipeline_lib.config.sampled import SOUGHT
from pipeline_lib.data.arrays import appending
from pipeline_lib.data.grid import save_grid
from pipeline_lib.data.prepared import to_uint8
from pipeline_lib.diffusion.denoiser import Denoiser, Denoising, Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.faults import no_gpu_memory
from pipeline_lib.networks import latent_space, replay, trained
from pipeline_lib.networks.latent_space import LatentSpace
from pipeline_lib.networks.trained import WEIGHTS, weights_file
from pipeline_lib.parallel import ALONE, World, join
from pipeline_lib.records.costs import Stopwatch, total
from pipeline_lib.records.files import sha256, write_json
from pipeline_lib.records.progress import Progress
from pipeline_lib.records.store import Entry, Manifest, alone, entry
from pipeline_lib.samplers import Draw, _moments, _tuned, clip_x0

if TYPE_CHECKING:
    from pipeline_lib.diffusion.grid import Grid
    from pipeline_lib.samplers import Correction, Observer

VERSION = 1
SAVE_SECONDS = 60.0  # between two records of how far a cell is
log = logging.getLogger(__name__)


class Counted:
    """A denoiser that is called in micro-batches, and counts the images that the network has seen."""

    def __init__(self, denoiser: Denoising, batch: int) -> None:
        self.denoiser, self.batch, self.path = denoiser, batch, denoiser.path
        self.images = 0

    def __call__(self, x: Tensor, t: Tensor | float, labels: Tensor | None = None) -> Prediction:
        self.images += len(x)
        times = torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(x))
        while True:
            try:
                parts = self._parts(x, times, labels)
                break
            except RuntimeError as error:
                if not no_gpu_memory(error):
                    raise
            self._halve(min(len(x), self.batch), x.device)  # here, where what was raised holds no memory any more
        if len(parts) == 1:
            return parts[0]
        a, s, output = (torch.cat([getattr(p, name) for p in parts]) for name in ("a", "s", "output"))
        places = [p.fraction for p in parts if p.fraction is not None]
        fraction = torch.cat(places) if places else None
        return Prediction(x, a, s, output, parts[0].kind, fraction)

    def _parts(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Prediction]:
        rows = [slice(i, i + self.batch) for i in range(0, len(x), self.batch)]
        return [self.denoiser(x[part], t[part], None if labels is None else labels[part]) for part in rows]

    def _halve(self, rows: int, where: torch.device) -> None:
        if rows == 1:
            raise device.no_room("the network's activations for 1 image", "take a smaller network", where)
        self.batch = rows // 2
        log.warning("%d images do not fit the GPU at once: it takes %d (runtime.sample_batch).", rows, self.batch)
        replay.forget()


def draw(
    denoiser: Denoising,
    sampling: Sampling,
    nfe: int,
    index: Tensor,
    shape: Sequence[int],
    batch: int,
    labels: Tensor | None = None,
    observe: Observer | None = None,
    guide: Denoiser | None = None,
    facts: dict[str, Any] | None = None,
    start: Tensor | None = None,
    first: int = 0,
    end: int | None = None,
) -> Tensor:
    """Chains number `index` (B,) from x_T to x_0 (B, *shape), in lock-step, so that `observe` sees all at each t.

    The chains depend on the sampling's seed and their index alone, not on `batch` or on which are drawn together.
    `guide`: the noisy classifier that the sampling names, which then needs `labels`. `facts` takes up what corrections
    have to say of the chains. `start`: x (B, *shape) at place `first` of the grid, in place of x_T from the
    prior; the chains stop at place `end`, None: at x_0.
    """
    noise = Noise(sampling.seed, index.device)
    if start is None:
        start = denoiser.path.prior_std * denoiser.path.eps(noise, Stream.PRIOR, index, 0, shape)
    grid = denoiser.path.grid(sampling.steps(nfe), sampling.spacing).part(first, end)
    return onward(denoiser, sampling, grid, start, index, batch, labels, observe, guide, facts=facts)


def onward(
    denoiser: Denoising,
    sampling: Sampling,
    grid: Grid,
    x: Tensor,
    index: Tensor,
    batch: int,
    labels: Tensor | None = None,
    observe: Observer | None = None,
    guide: Denoiser | None = None,
    before: Sequence[Correction] = (),
    facts: dict[str, Any] | None = None,
) -> Tensor:
    """As `draw`, from x (B, *shape) where the grid begins; corrections `before` come before those of the sampling.

    Below x_T they go on as in a chain that has come so far: those with `resume(step)` are told the planned step before.
    """
    module, options = load_part("samplers", sampling.sampler)

    def correction(one: Mapping[str, Any]) -> Correction:
        guidance = (guide, labels, batch) if "classifier" in one else ()
        return build_part("samplers/corrections", one, denoiser.path, len(grid), *guidance)

    corrections = [*before, *map(correction, sampling.corrections), *([clip_x0] if sampling.clip_x0 else [])]
    noise = Noise(sampling.seed, index.device)
    counted = denoiser if isinstance(denoiser, Counted) else Counted(denoiser, batch)
    for correct in corrections if grid.first else ():
        if hasattr(correct, "resume"):
            correct.resume(grid.step(grid.first - 1))
    with torch.no_grad():
        x = module.sample(counted, grid, x, Draw(noise, index), options, labels, corrections, observe)
    for correct in corrections:
        if facts is not None and hasattr(correct, "facts"):
            facts |= correct.facts()
    return x


def labels_of(index: Tensor, classes: int, seed: int) -> Tensor:
    """Labels (B,) uniform over the classes, by chain number."""
    return Noise(seed, index.device).words(Stream.LABEL, index, 0, 1)[:, 0] % classes


def classes_of(about: Mapping[str, Any], sampling: Sampling) -> int:
    """Of how many classes chains get labels, given what weights say of themselves; 0 where nothing asks for labels."""
    return about["classes"] if about["run"]["network"]["conditional"] or sampling.guide else 0


def load_guide(sampling: Sampling, guide: Manifest | None, where: torch.device) -> Denoiser | None:
    """The noisy classifier that a sampling names, None for most; raises BadConfig where its manifest is not given."""
    if sampling.guide is None:
        return None
    if guide is None:
        raise BadConfig(f"the sampling is guided by {sampling.guide}; give the manifest of its training with --guide.")
    return trained.load(guide.file(WEIGHTS), where)[0]


def store_of(
    config: Mapping[str, Any], train: Manifest, autoencoder: Manifest | None = None, guide: Manifest | None = None
) -> Entry:
    """Where the samples of a training lie, given the configuration of the stage; each number of calls is a cell of it.

    Its fingerprint is in their manifest, and tells from which weights, and how, they were drawn.
    """
    identity = {k: v for k, v in config.items() if k not in ("nfe", *SOUGHT)}
    inputs = {"weights": train.files[weights_file(config.get("weights", EMA))]}
    if autoencoder:
        inputs["autoencoder"] = autoencoder.files[latent_space.WEIGHTS]
    if guide:
        inputs["guide"] = guide.files[WEIGHTS]
    return entry("sample", VERSION, identity, inputs)


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    train: Manifest,
    autoencoder: Manifest | None = None,
    moments: Manifest | None = None,
    guide: Manifest | None = None,
    tuned: Manifest | None = None,
) -> None:
    """Draw every cell that is not there yet, and write the manifest of those asked for; all processes of a job call it.

    `autoencoder`: what made the latents that the run was trained on, and makes images of those that are drawn.
    `moments`: what the sampler must know of the run, where it asks for it.
    `guide`: the training of the noisy classifier that the sampling names.
    `tuned`: the tuning whose constants the sampling uses.
    """
    sampling = parse(Sampling, config)
    weights = weights_file(sampling.weights)
    store = store_of(config, train, autoencoder, guide)
    with join() as world:
        where = device.pick()
        space = latent_space.load(autoencoder, where) if autoencoder else None
        denoiser, facts = trained.ready(train.file(weights), where, sampling.precision)
        if average := trained.average_of(facts):
            log.info("drawing from the average %s after step %d", average, facts["step"])
        by = load_guide(sampling, guide, where)
        cells: list[dict[str, Any]] = []
        files: dict[str, str] = {}
        for nfe in sampling.nfe:
            own = _tuned.known(_moments.known(sampling, moments, nfe), nfe, tuned, facts["run"]["diffusion"])
            name = f"nfe{nfe:04d}{_tuned.suffix(sampling, own)}"
            source = Cell(store.folder / name, denoiser, facts, own, runtime["batch"], where, space, by, world)
            if not world.leads:
                source.help(nfe)
                continue
            cells.append(source.get(nfe))
            files |= {f"{name}/{kind}": sha for kind, sha in cells[-1]["files"].items()}
    if not world.leads:
        return
    write_json(store.folder / "identity.json", store.identity)
    Stopwatch("sample", {**total(cells), "segments": 0}).save(output.parent, images=float(len(cells) * sampling.images))
    drawn_from = {"sha256": train.files[weights], **trained.state_of(facts)}
    facts_out = {"weights": drawn_from, "cells": [c["facts"] | {"nfe": c["nfe"]} for c in cells]}
    Manifest("sample", store.fingerprint, str(store.folder), files, facts_out).save(output)


@dataclass(frozen=True)
class Cell:
    """A cell of one trained run and sampling, in a folder of its own in the store entry."""

    folder: Path
    denoiser: Denoising
    about: dict[str, Any]  # what the weights say of themselves: run, shape, classes
    sampling: Sampling
    batch: int
    where: torch.device
    space: LatentSpace | None = None  # of the latents that are drawn; without it, pixels are
    guide: Denoiser | None = None
    world: World = ALONE

    def get(self, nfe: int) -> dict[str, Any]:
        """Number of calls, file hashes, facts and seconds of a cell, drawn now unless it was before and is whole."""
        folder = self.folder
        with alone(folder):
            done = folder / "done.json"
            known: dict[str, Any] = json.loads(done.read_text()) if done.is_file() else {}
            there = bool(known) and _whole(folder, known["files"])
            self.world.told(not there)
            if there:
                log.info("%d calls: drawn before, found in %s", nfe, folder)
                return known
            if known:
                log.warning("%d calls: the images in %s are gone or were changed; drawing them again", nfe, folder)
            cell = self._new(folder, nfe)
            write_json(done, cell)
            return cell

    def help(self, nfe: int) -> None:
        """Draw a share of the cell that the first process makes, unless it is there."""
        if self.world.told():
            self._draw(self.folder, nfe)

    def _new(self, folder: Path, nfe: int) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        watch = Stopwatch("sample")
        drawn = self._draw(folder, nfe)
        images = np.load(folder / "images.npy", mmap_mode="r")
        save_grid(images[:64], folder / "grid.png")
        facts = {
            **drawn,
            "images": f"{folder.name}/images.npy",
            "grid": f"{folder.name}/grid.png",
            "count": len(images),
            "shape": list(images.shape[1:]),
        }
        files = {name: sha256(folder / name) for name in ("images.npy", "grid.png")}
        return {"nfe": nfe, **watch.spent(), "files": files, "facts": facts}

    def _draw(self, folder: Path, nfe: int) -> dict[str, Any]:
        """Draw images.npy block by block, going on where an interrupted job stopped; returns calls per image, and what
        corrections say of the chains. Each process draws a block of `batch` images, and the first writes them all."""
        total, world = self.sampling.images, self.world
        part, mark = folder / "images.part.npy", folder / "part.json"
        begun: dict[str, Any] = {"done": 0, "calls": 0, "facts": {}}
        if world.leads and mark.is_file() and part.is_file():
            begun |= json.loads(mark.read_text())
        first, calls, facts = world.told(begun["done"]), begun["calls"], begun["facts"]
        counted = Counted(self.denoiser, self.batch)
        progress = Progress(log, f"{nfe} calls", "images", total, first)
        saved = time.monotonic()
        with self._file(part, first) as append:
            for start in range(first, total, self.batch * world.size):
                drawn = world.gather(self._block(counted, nfe, start + world.rank * self.batch, facts))
                calls, counted.images = calls + world.total(counted.images)[0], 0
                done = min(start + len(drawn), total)
                append(drawn[: done - start].cpu().numpy())
                progress.update(done)
                if world.leads and time.monotonic() - saved > SAVE_SECONDS:
                    write_json(mark, {"done": done, "calls": calls, "facts": facts})
                    saved = time.monotonic()
        if world.leads:
            part.replace(folder / "images.npy")
            mark.unlink(missing_ok=True)
        for name, value in facts.items():
            log.info("%d calls: %s %s", nfe, name, value)
        return {"calls": calls / total, **facts}

    def _block(self, counted: Counted, nfe: int, start: int, facts: dict[str, Any]) -> Tensor:
        """uint8 images number start, start + 1, ...: `batch` of them, or as many as are left where one process draws.

        Several give equally many, so there zeros stand for images that nobody wants. Raises BadData where a chain is
        not finite, which as uint8 would be a black image like any other.
        """
        shape, classes = tuple(self.about["shape"]), classes_of(self.about, self.sampling)
        kept, decode = (self.space.image_shape, self.space.decode) if self.space else (shape, to_uint8)
        index = torch.arange(start, max(start, min(start + self.batch, self.sampling.images)), device=self.where)
        labels = labels_of(index, classes, self.sampling.seed) if classes else None
        images = torch.empty(0, *kept, dtype=torch.uint8, device=self.where)
        if len(index):
            x = draw(counted, self.sampling, nfe, index, shape, self.batch, labels, guide=self.guide, facts=facts)
            self._finite(x, nfe)
            images = decode(x)
        missing = self.batch - len(images) if self.world.size > 1 else 0
        return torch.cat((images, images.new_zeros(missing, *kept))) if missing else images

    def _finite(self, x: Tensor, nfe: int) -> None:
        if bad := len(x) - int(x.isfinite().flatten(1).all(1).sum()):
            raise BadData(
                f"{bad} of {len(x)} chains of the sampler {self.sampling.sampler['name']} at {nfe} calls end in "
                f"numbers that are not finite ({self.folder}): lower training.lr if the training diverged, set "
                "clip_x0: true in the sampling, or give its sampler and corrections other constants."
            )

    def _file(self, path: Path, keep: int) -> AbstractContextManager[Callable[[np.ndarray], None]]:
        """What appends images to the file; nothing where another process writes it."""
        kept = self.space.image_shape if self.space else tuple(self.about["shape"])
        return appending(path, kept, np.uint8, keep=keep) if self.world.leads else nullcontext(lambda images: None)


def _whole(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether all files are there with the hashes that they had when they were made."""
    return all((folder / name).is_file() and sha256(folder / name) == sha for name, sha in files.items())
