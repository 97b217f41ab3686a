"""The autoencoder stage: trains the map to latents of a dataset (Rombach et al., 2022, first stage).

The error of pixels and the regulariser are trained on; the perceptual and the adversarial term of the original are not.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from functools import partial
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib import device
from pipeline_lib.config.base import load_part
from pipeline_lib.config.models import Autoencoder, Training
from pipeline_lib.data.grid import save_grid
from pipeline_lib.data.prepared import Prepared, to_float
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig, BadData, TryAgain
from pipeline_lib.networks import latent_space
from pipeline_lib.networks.latent_space import LatentSpace
from pipeline_lib.objectives import Batch
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.progress import Progress
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.training.batches import Batches
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.lease import Lease
from pipeline_lib.training.stop import Stop
from pipeline_lib.training.train import obtain

VERSION = 1
BETAS = (0.5, 0.9)  # of Adam, as in the original [memory]
BLOCK = 64  # images encoded at once
SHOWN = 32
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    data: Manifest,
    max_minutes: float | None = None,
) -> None:
    """Train the autoencoder of a dataset, or go on, or find what was trained before; write its manifest.

    Facts: parameters, shape of images and latents, mean and std of the training images' latents before scaling, and on
    held-out images (null without) mse, the mean squared error of a pixel in [-1, 1], and psnr, in dB of 255 levels;
    both of uint8 reconstructions. Raises BadConfig where the downsampling factor does not divide the images.
    """
    torch.set_num_threads(1)  # sums depend on the number of threads, so the weights would, too
    store = entry("autoencoder", VERSION, config, {"data": data.content})
    make = partial(_make, store, config, runtime["checkpoint_minutes"], Prepared(data))
    if manifest := obtain(store, max_minutes, make):
        manifest.publish(output)


def _make(
    store: Entry, config: Mapping[str, Any], minutes: float, data: Prepared, stop: Stop, lease: Lease
) -> Manifest:
    _, options = load_part("networks/autoencoders", config)
    shape, where = options.latent_shape(data.shape), device.pick()
    network = latent_space.build(config, data.shape[0], options.seed).to(where)
    fit = Fit(network, options, data, store.folder, where)
    fit.until_done(stop, lease, minutes)
    network.eval().requires_grad_(False)
    mean, std = moments(LatentSpace(network, data.shape, shape, 1.0, where), data)
    space = LatentSpace(network, data.shape, shape, std, where)
    lease.confirm()
    latent_space.save(store.folder / latent_space.WEIGHTS, network, config, data.shape, std)
    held_out = data.holdout() if data.manifest.facts["holdout"] else None
    save_reconstructions(space, held_out or data, store.folder / "grid.png")
    facts = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "image_shape": list(data.shape),
        "shape": list(shape),
        "mean": mean,
        "std": std,
        **(errors(space, held_out) if held_out else {"mse": None, "psnr": None}),
    }
    log.info("latents %s, standard deviation %.4g, held-out PSNR %s dB", facts["shape"], std, facts["psnr"])
    fit.watch.save(store.folder, images=float(options.steps * options.batch_size))
    lease.confirm()  # the errors take a while
    manifest = store.finish([latent_space.WEIGHTS, "grid.png"], facts)
    fit.checkpoints.delete()
    return manifest


class Fit:
    """What changes while an autoencoder is trained; it can stop after any step and go on bit by bit."""

    def __init__(
        self, network: nn.Module, options: Autoencoder, data: Prepared, folder: Path, device: torch.device
    ) -> None:
        self.network, self.options, self.folder = network, options, folder
        self.batches = Batches(data, Training(batch_size=options.batch_size), options.seed, device)
        self.optimizer = torch.optim.Adam(network.parameters(), options.lr, BETAS)
        self.checkpoints, self.watch, self.done = Checkpoints(folder), Stopwatch("autoencoder"), 0
        if state := self.checkpoints.load(device):
            self.done = state["done"]
            network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.watch = Stopwatch("autoencoder", state["costs"])
            log.info("going on after step %d", self.done)

    def until_done(self, stop: Stop, lease: Lease, minutes: float) -> None:
        """Train to the end, with a checkpoint every `minutes`, or save and raise TryAgain where `stop` says so."""
        total, saved = self.options.steps, time.monotonic()
        progress = Progress(log, "autoencoder", "steps", total, self.done)
        while self.done < total:
            self.step()
            lease.step = self.done
            if lease.lost:
                raise TryAgain(f"another trainer took over {self.folder} while this one stood still; it leaves.")
            progress.update(self.done)
            if (reason := stop.reason()) and self.done < total:
                self.save(lease)
                raise TryAgain(f"stopped after step {self.done} of {total} because {reason}; the next attempt goes on.")
            if time.monotonic() - saved > 60 * minutes:
                self.save(lease)
                saved = time.monotonic()
        self.check()

    def step(self) -> None:
        """One optimiser step."""
        self.optimizer.param_groups[0]["lr"] = self.options.lr * (1 - self.done / self.options.steps)
        loss = loss_of(self.network, self.batches.at(self.done), self.options.reconstruction).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1

    def save(self, lease: Lease) -> None:
        """Write a checkpoint; weights that are not finite never enter one. Raises TryAgain where the lease is lost."""
        self.check()
        self.checkpoints.save(
            {
                "done": self.done,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "costs": self.watch.read(images=float(self.done * self.options.batch_size)),
            },
            lease.confirm,
        )

    def check(self) -> None:
        """Raise BadConfig if a weight has ceased to be finite."""
        if not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            raise BadConfig(
                f"a weight of the autoencoder is not finite by step {self.done}: it diverged; lower autoencoder.lr."
            )


def loss_of(network: nn.Module, batch: Batch, reconstruction: str) -> Tensor:
    """Mean error of a pixel plus regulariser of each image (B,)."""

    def normal(shape: tuple[int, ...]) -> Tensor:
        return batch.noise.normal(Stream.AUTOENCODER, batch.index, batch.step, shape)

    images, regulariser = network(batch.x0, normal)
    off = images - batch.x0
    return (off.abs() if reconstruction == "l1" else off.square()).flatten(1).mean(1) + regulariser


def blocks(data: Prepared) -> Iterator[Tensor]:
    """All images, uint8, some at a time."""
    for start in range(0, len(data), BLOCK):
        yield torch.from_numpy(np.array(data.images[start : start + BLOCK]))


def moments(space: LatentSpace, data: Prepared) -> tuple[float, float]:
    """Mean and standard deviation of all numbers in the latents of all images; raises BadData where they are equal."""
    first, second, count = 0.0, 0.0, 0
    for images in blocks(data):
        z = space.encode(images).double()
        first, second, count = first + float(z.sum()), second + float(z.square().sum()), count + z.numel()
    mean = first / count
    variance = second / count - mean**2
    if not variance > 0:
        raise BadData("all latents of the training images are equal: the autoencoder has learned nothing.")
    return mean, variance**0.5


def errors(space: LatentSpace, data: Prepared) -> dict[str, float]:
    """mse (of a pixel in [-1, 1]) and psnr (in dB) of uint8 reconstructions."""
    total = sum(
        float((to_float(space.decode(space.encode(images)).cpu()) - to_float(images)).double().square().sum())
        for images in blocks(data)
    )
    mse = total / data.images.size
    return {"mse": mse, "psnr": 10 * log10(4 / max(mse, 1e-12))}


def save_reconstructions(space: LatentSpace, data: Prepared, path: Path) -> None:
    """Rows of images, each row above its reconstructions."""
    images = torch.from_numpy(np.array(data.images[:SHOWN]))
    again, columns = space.decode(space.encode(images)).cpu(), 8
    pairs = zip(images.split(columns), again.split(columns), strict=True)
    save_grid(torch.cat([row for pair in pairs for row in pair]).numpy(), path, columns)
