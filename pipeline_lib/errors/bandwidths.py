"""The bandwidths stage: length scales of the kernels, frozen per dataset and shared by every method, path and t.

They are medians of pairwise L2 distances of forward samples (the median heuristic), on scale-normalised x_t and keyed
by log-SNR: x_t of all Gaussian paths at equal log-SNR are then the same random variable.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isinf, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pipeline_lib import device
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.kernels import squared_distances
from pipeline_lib.errors.forward import BANDWIDTHS, ForwardSamples, check_count, normalise
from pipeline_lib.exits import BadData
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import write_json
from pipeline_lib.records.store import Entry, Manifest, entry

VERSION = 1
IMAGES = 1000  # 499 500 pairs: the median of distances in thousands of dimensions has settled long before
LOG_SNR = range(-20, 21)
FILE = "bandwidths.json"
log = logging.getLogger(__name__)

Reading = Literal["shared", "per-t"]


@dataclass(frozen=True)
class Bandwidths:
    """Frozen length scales in units of scale-normalised pixels, and sigma_data^2, the mean squared pixel value."""

    log_snr: list[float]
    medians: list[float]
    clean: float
    shared: float
    sigma_data2: float
    images: int

    @classmethod
    def load(cls, manifest: Manifest) -> "Bandwidths":
        """Raises BadData where the file is missing or not what it was."""
        return cls(**json.loads(manifest.file(FILE).read_text()))

    def length_scale(self, log_snr: float, reading: Reading) -> float:
        """'shared': one number for all t; 'per-t': the median at this log-SNR, interpolated linearly in nats."""
        if reading == "shared":
            return self.shared
        if isinf(log_snr):
            return self.clean
        return float(np.interp(log_snr, self.log_snr, self.medians))


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, data: Manifest) -> None:
    """Measure the bandwidths of a dataset, or find them in the store; raises BadData where images do not differ.

    `runtime` holds the number of forward samples that errors will be measured against: too many are refused here
    (BadConfig), and not after hours of training.
    """
    check_count(runtime["forward"], data.facts["count"])
    store = entry("bandwidths", VERSION, config, {"data": data.content})
    manifest = store.obtain(lambda: _make(store, Prepared(data), config["seed"]))
    log.info(
        "length scale %.4g for all t, sigma_data %.4g", manifest.facts["shared"], manifest.facts["sigma_data2"] ** 0.5
    )
    manifest.publish(output)


def _make(store: Entry, data: Prepared, seed: int) -> Manifest:
    watch = Stopwatch("bandwidths")
    frozen = measure(data, seed, device.pick())
    write_json(store.folder / FILE, vars(frozen))
    watch.save(store.folder, images=float(frozen.images))
    return store.finish([FILE], {"shared": frozen.shared, "sigma_data2": frozen.sigma_data2})


def measure(data: Prepared, seed: int, where: torch.device | str = "cpu") -> Bandwidths:
    """Medians at a fixed set of log-SNR values and at clean data; 'shared' is the median of all these medians."""
    sigma_data2 = mean_square(data.images)
    count = min(IMAGES, len(data))
    forward = ForwardSamples(data, count, seed, BANDWIDTHS, where)
    medians = [_median(forward, sqrt(_sigmoid(x)), sqrt(_sigmoid(-x)), sigma_data2) for x in LOG_SNR]
    clean = _median(forward, 1.0, 0.0, sigma_data2)
    if clean == 0:
        raise BadData("most pairs of training images are identical, so kernels have no length scale; check the data.")
    shared = float(np.median([*medians, clean]))
    return Bandwidths([float(x) for x in LOG_SNR], medians, clean, shared, sigma_data2, count)


def mean_square(images: np.ndarray, chunk: int = 10_000) -> float:
    """Mean squared value: of uint8 images that of pixels in [-1, 1], from their histogram, so without rounding."""
    if images.dtype != np.uint8:  # latents
        squares = (np.square(images[i : i + chunk], dtype=np.float64).sum() for i in range(0, len(images), chunk))
        return float(sum(squares)) / images.size
    counts = sum(np.bincount(images[i : i + chunk].ravel(), minlength=256) for i in range(0, len(images), chunk))
    values = np.arange(256) / 127.5 - 1
    return float(np.average(values**2, weights=counts))


def _median(forward: ForwardSamples, a: float, s: float, sigma_data2: float) -> float:
    squared = squared_distances(normalise(forward.at(a, s), a, s, sigma_data2))
    upper = torch.ones_like(squared, dtype=torch.bool).triu(1)
    return float(squared[upper].median().sqrt())


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))
