"""Batches as a function of the step: nothing is remembered between steps, so a resumed run sees the same ones."""

import logging
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config.models import Training
from pipeline_lib.data.prepared import Prepared, to_float
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import Batch

log = logging.getLogger(__name__)
ON_DEVICE = 0.25  # data stays on the GPU where it takes no more than this share of its memory


class Batches:
    """The images of each step: epochs in a random order, each image once an epoch, keyed by (seed, epoch)."""

    def __init__(self, data: Prepared, config: Training, seed: int, device: torch.device) -> None:
        """Raises BadConfig where the dataset is smaller than a batch."""
        if len(data) < config.batch_size:
            raise BadConfig(
                f"training.batch_size is {config.batch_size}, but the dataset has only {len(data)} training images."
            )
        self.config, self.device = config, device
        self.noise = Noise(seed, device)
        self.count = len(data)
        self.pixels = data.images.dtype == np.uint8  # else latents
        self.images = _resident(data.images, device)
        self.streamed = device.type == "cuda" and not isinstance(self.images, Tensor)
        self.labels = None if data.labels is None else torch.from_numpy(data.labels).to(device)
        order = Noise(seed)
        self._order = lru_cache(maxsize=2)(lambda epoch: order.permutation(Stream.ORDER, self.count, epoch))

    def at(self, step: int, rows: range | None = None) -> Batch:
        """The batch of a step, or these rows of it: equal to those of the whole, draws included."""
        size = self.config.batch_size
        rows = rows or range(size)
        place = torch.arange(rows.start, rows.stop, device=self.device)
        chosen = self._chosen(step * size + rows.start, len(rows))
        x0 = self._floats(chosen)
        if self.config.flip:
            flip = self.noise.uniform(Stream.FLIP, place, step) < 0.5
            x0 = torch.where(flip[:, None, None, None], x0.flip(-1), x0)
        labels = None if self.labels is None else self.labels[self._moved(chosen)]
        return Batch(x0, labels, place, step, self.config.mmd_group, self.noise)

    def _chosen(self, first: int, size: int) -> Tensor:
        """Indices of the images number first, first + 1, ... of the endless sequence of epochs."""
        position = torch.arange(first, first + size)
        epochs = position // self.count
        parts = [self._order(int(e))[position[epochs == e] % self.count] for e in epochs.unique()]
        return torch.cat(parts)

    def _floats(self, chosen: Tensor) -> Tensor:
        if isinstance(self.images, Tensor):
            return to_float(self.images[self._moved(chosen)])
        return to_float(self._moved(torch.from_numpy(self.images[chosen.numpy()])))

    def _moved(self, values: Tensor) -> Tensor:
        """On the device, from pinned memory: else the host waits until the GPU has done all it was given before."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values


def _resident(images: np.ndarray, device: torch.device) -> Tensor | np.ndarray:
    """The images on the GPU if they fit; otherwise the memory map, read batch by batch."""
    if device.type != "cuda":
        return images
    if images.nbytes < ON_DEVICE * torch.cuda.get_device_properties(device).total_memory:
        with suppress(torch.OutOfMemoryError):  # others hold the memory
            return torch.from_numpy(np.array(images)).to(device)
    log.warning("%.1f GB of images stay off the GPU, and are sent batch by batch.", images.nbytes / 1e9)
    return images
