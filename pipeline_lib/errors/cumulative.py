"""The errors stage: MMD^2 between sampled and forward x_t at each measured t (Li and van der Schaar, 2024, Eq. 12, 13).

Measured on scale-normalised x_t with the frozen kernels of the dataset; forward samples are the same for all methods.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Errors, Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.diffusion.kernels import KERNELS, squared_distances
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.errors import trends as trend
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.errors.chains import Chains, measured
from pipeline_lib.errors.forward import MEASURED, ForwardSamples, normalise
from pipeline_lib.errors.uncertainty import Estimate, estimate, labellings, p_value, permutation_null
from pipeline_lib.exits import BadData
from pipeline_lib.networks import trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest

VERSION = 1
WEIGHTS = "weights.safetensors"
log = logging.getLogger(__name__)

Row = dict[str, Any]
Matrices = tuple[Tensor, Tensor, Tensor]


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    trends: Path,
    train: Manifest,
    data: Manifest,
    bandwidths: Manifest,
) -> None:
    """Measure every cell and write errors to `output` and trends to `trends`.

    `config` holds `sampling` and the fields of `Errors`. Raises BadConfig where the dataset has fewer images than
    forward samples are asked for, and BadData where sampled chains are not finite.
    """
    settings = parse(Errors, {k: v for k, v in config.items() if k != "sampling"}, "errors")
    sampling = parse(Sampling, config["sampling"], "sampling")
    where, watch = device.pick(), Stopwatch("errors")
    forward = ForwardSamples(Prepared(data), settings.forward or settings.chains, settings.seed, MEASURED, where)
    frozen = Bandwidths.load(bandwidths)
    weights = train.file(WEIGHTS)
    denoiser, facts = trained.load(weights, where)
    classes = facts["classes"] if facts["run"]["network"]["conditional"] else 0
    points: list[Row] = []
    slopes: list[Row] = []
    for nfe in sampling.nfe:
        log.info("measuring %d chains of %d calls", settings.chains, nfe)
        shape, batch = tuple(facts["shape"]), runtime["batch"]
        chains = Chains(denoiser, train.files[WEIGHTS], sampling, nfe, settings.chains, shape, classes, batch, where)
        cell = Comparison(chains.grid, forward, frozen, settings)
        calls = chains.visit(settings.times, cell.see)
        points += [{"nfe": calls, **row} for row in cell.rows]
        slopes += [{"nfe": calls, **row} for row in cell.trends()]
    made_from = provenance.of("errors", VERSION, config, {"train": train, "data": data, "bandwidths": bandwidths})
    tables.write(output, points, tables.ERRORS, made_from)
    tables.write(trends, slopes, tables.TRENDS, made_from)
    watch.save(output.parent, images=float(settings.chains * len(sampling.nfe)))


@dataclass(frozen=True)
class Reading:
    """One of the curves that are measured in one pass: a kernel, and how its bandwidth is read."""

    kernel: str
    bandwidth: Literal["shared", "per-t"]


class Comparison:
    """Sampled against forward x_t along one grid: `see` is shown x_t at each measured t and collects rows."""

    def __init__(self, grid: Grid, forward: ForwardSamples, frozen: Bandwidths, settings: Errors) -> None:
        self.grid, self.forward, self.frozen, self.settings = grid, forward, frozen, settings
        self.rows: list[Row] = []
        self.steps: list[int] = []
        self.readings = [Reading(k, b) for k in settings.kernels for b in settings.bandwidths]
        self.curves: dict[Reading, list[Estimate]] = {reading: [] for reading in self.readings}
        self.tested = _tested(measured(len(grid), settings.times), settings)
        self.labels = labellings(
            settings.chains, len(forward.x0), settings.permutations, settings.seed, forward.x0.device
        )

    def see(self, place: int, x: Tensor) -> None:
        """Compare chains x_t (N,C,H,W) at `place` in the grid with forward samples at the same t; all kernels at once.

        Raises BadData where x_t is not finite.
        """
        a, s = self.grid.a[place], self.grid.s[place]
        if not bool(torch.isfinite(x).all()):
            raise BadData(
                f"sampled x_t is not finite at t = {self.grid.times[place]:g} (step {place} of {len(self.grid)}); the "
                "trained network diverges when sampled, so train it again with a smaller lr, or sample with clip_x0."
            )
        sampled = normalise(x, a, s, self.frozen.sigma_data2)
        forward = normalise(self.forward.at(a, s), a, s, self.frozen.sigma_data2)
        distances = squared_distances(sampled), squared_distances(sampled, forward), squared_distances(forward)
        clock = log_snr(a, s) if s else inf
        self.steps.append(place)
        for reading in self.readings:
            scale = self.frozen.length_scale(clock, reading.bandwidth)
            xx, xy, yy = (KERNELS[reading.kernel](d, scale) for d in distances)
            self._add(reading, place, clock, scale, (xx, xy, yy))

    def trends(self) -> Iterator[Row]:
        """Rows of all trends of all curves."""
        for reading, curve in self.curves.items():
            for row in trend.rows(curve, self.steps, self.settings.confidence, self.settings.seed):
                yield {"kernel": reading.kernel, "bandwidth": reading.bandwidth, **row}

    def _add(self, reading: Reading, place: int, clock: float, scale: float, matrices: Matrices) -> None:
        settings = self.settings
        found = estimate(*matrices, settings.statistic)
        half = NormalDist().inv_cdf((1 + settings.confidence) / 2) * found.se
        self.curves[reading].append(found)
        self.rows.append(
            {
                "kernel": reading.kernel,
                "bandwidth": reading.bandwidth,
                "statistic": settings.statistic,
                "step": place,
                "t": self.grid.times[place],
                "log_snr": clock,
                "length_scale": scale,
                "mmd2": found.value,
                "se": found.se,
                "low": found.value - half,
                "high": found.value + half,
                "n": len(found.chains),
                "m": len(found.forward),
                "confidence": settings.confidence,
                **(self._null(found.value, matrices) if place in self.tested else {}),
            }
        )

    def _null(self, value: float, matrices: Matrices) -> Row:
        null = permutation_null(*matrices, self.labels, self.settings.statistic)
        quantile = np.quantile(null, self.settings.confidence, method="higher")
        return {"null_quantile": float(quantile), "p_value": p_value(value, null)}


def _tested(places: list[int], settings: Errors) -> set[int]:
    """The measured places that get the permutation null: at most `null_times`, spread evenly."""
    if not settings.permutations or not settings.null_times:
        return set()
    count = min(settings.null_times, len(places))
    return {places[round(i)] for i in np.linspace(len(places) - 1, 0, count)}
