"""The errors stage: MMD^2 between sampled and forward x_t at each measured t (Li and van der Schaar, 2024, Eq. 12, 13).

Measured on scale-normalised x_t with the frozen kernels of the dataset; samples of q(x_t) are the same for all methods
on Gaussian paths, and their images and normal numbers for all.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Anatomy, Errors, Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.grid import Grid
from pipeline_lib.diffusion.kernels import KERNELS, squared_distances
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.errors import training_inputs
from pipeline_lib.errors import trends as trend
from pipeline_lib.errors.anatomy._views import Dissection, Pairs, Subject
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.errors.chains import Chains, measured
from pipeline_lib.errors.forward import MEASURED, ForwardLaw, ForwardSamples, normalise
from pipeline_lib.errors.jackknife import Estimate
from pipeline_lib.errors.uncertainty import labellings, of_sums, p_value, permutation_null, sums
from pipeline_lib.errors.verdicts import tolerance, verdict
from pipeline_lib.exits import BadData
from pipeline_lib.networks import trained
from pipeline_lib.networks.trained import WEIGHTS, weights_file
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _tuned
from pipeline_lib.samplers._moments import known
from pipeline_lib.samplers._stage import classes_of, load_guide

VERSION = 6
TOGETHER = 2**25  # so many distances go through a kernel at once, to launch less; more would take much memory
log = logging.getLogger(__name__)

Row = dict[str, Any]
Matrices = tuple[Tensor, Tensor, Tensor]


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    trends: Path,
    influences: Path,
    anatomy: Path,
    train: Manifest,
    data: Manifest,
    bandwidths: Manifest,
    moments: Manifest | None = None,
    guide: Manifest | None = None,
    tuned: Manifest | None = None,
) -> None:
    """Measure every cell; write errors to `output`, trends, influences and anatomy to the files of that name.

    `config` holds `sampling`, `anatomy` and the fields of `Errors`. Raises BadConfig where the dataset has fewer images
    than forward samples are asked for, and BadData where sampled chains are not finite. `guide`: the training of the
    noisy classifier that the sampling names; `tuned`: the tuning whose constants it uses.
    """
    settings = parse(Errors, {k: v for k, v in config.items() if k not in ("sampling", "anatomy")}, "errors")
    dissected = parse(Anatomy, config["anatomy"], "anatomy")
    sampling = parse(Sampling, config["sampling"], "sampling")
    where, watch = device.pick(), Stopwatch("errors")
    averaged = weights_file(sampling.weights)
    denoiser, facts = trained.ready(train.file(averaged), where, sampling.precision)
    count = settings.forward or settings.chains
    forward = ForwardSamples(Prepared(data), count, settings.seed, MEASURED, where, denoiser.path)
    frozen = Bandwidths.load(bandwidths)
    laws: list[ForwardLaw] = [forward]
    if "training-inputs" in settings.forward_laws:
        other = training_inputs.of_run(facts, forward, denoiser, settings.seed, runtime["batch"])
        laws += [other] if other else []
    by, classes = load_guide(sampling, guide, where), classes_of(facts, sampling)
    weights = train.files[averaged] + (guide.files[WEIGHTS] if guide else "")
    points: list[Row] = []
    slopes: list[Row] = []
    shares: list[Row] = []
    findings: list[Row] = []
    pairs = Pairs(forward.x0, forward.eps, forward.labels)
    for nfe in sampling.nfe:
        log.info("measuring %d chains of %d calls", settings.chains, nfe)
        shape, batch = tuple(facts["shape"]), runtime["batch"]
        own = _tuned.known(known(sampling, moments, nfe), nfe, tuned, facts["run"]["diffusion"])
        chains = Chains(denoiser, weights, own, nfe, settings.chains, shape, classes, batch, where, by)
        cell = Comparison(chains.grid, laws, frozen, settings)
        subject = Subject(denoiser, own, nfe, pairs, frozen, dissected, classes, batch, by)
        parts = Dissection(subject, settings.confidence)

        def see(place: int, x: Tensor, cell: Comparison = cell, parts: Dissection = parts) -> None:
            cell.see(place, x)
            parts.see(place, x)

        calls = chains.visit(settings.times, see)
        rows = cell.rows  # refused here where the last x_t is not finite
        parts.finish()
        points += [{"nfe": calls, **row} for row in rows]
        slopes += [{"nfe": calls, **row} for row in cell.trends()]
        shares += [{"nfe": calls, **row} for row in cell.influences()]
        findings += [{"nfe": calls, **row} for row in parts.rows]
    inputs = {
        "train": train,
        "data": data,
        "bandwidths": bandwidths,
        "moments": moments,
        "guide": guide,
        "tuned": tuned,
    }
    made_from = provenance.of("errors", VERSION, config, {k: m for k, m in inputs.items() if m})
    tables.write(output, points, tables.ERRORS, made_from)
    tables.write(trends, slopes, tables.TRENDS, made_from)
    tables.write(influences, shares, tables.INFLUENCES, made_from)
    tables.write(anatomy, findings, tables.ANATOMY, made_from)
    watch.save(output.parent, images=float(settings.chains * len(sampling.nfe)))


@dataclass(frozen=True)
class Reading:
    """One of the curves that are measured in one pass: a kernel, how its bandwidth is read, and the forward law."""

    kernel: str
    bandwidth: Literal["shared", "per-t"]
    law: str


@dataclass
class Curve:
    """What is known of one curve, point by point."""

    steps: list[int] = field(default_factory=list)
    points: list[Estimate] = field(default_factory=list)


@dataclass(frozen=True)
class Pending:
    """A point against one law whose numbers are on their way to the host."""

    law: str
    place: int
    sizes: tuple[int, int]
    arrived: Callable[[], np.ndarray]  # what `sums` gives for each reading, one after the other; then 1 if x is finite
    nulls: list[np.ndarray | None]


class Comparison:
    """Sampled against forward x_t along one grid: `see` is shown x_t at each measured t and collects rows.

    What a GPU works out at a point is read when the next one has been asked for, so that neither waits for the other.
    """

    def __init__(self, grid: Grid, laws: Sequence[ForwardLaw], frozen: Bandwidths, settings: Errors) -> None:
        self.grid, self.laws, self.frozen, self.settings = grid, laws, frozen, settings
        self.pending: list[Pending] = []
        self.settled: list[Row] = []
        self._curves: dict[Reading, Curve] = {}
        self.tested = _tested(measured(len(grid), settings.times), settings)
        count = settings.forward or settings.chains
        self.labels = labellings(settings.chains, count, settings.permutations, settings.seed)

    def see(self, place: int, x: Tensor) -> None:
        """Compare chains x_t (N,C,H,W) at `place` in the grid with each forward law at the same t; all kernels at once.

        Raises BadData where x_t of the place before was not finite.
        """
        a, s = self.grid.a[place], self.grid.s[place]
        self.labels = self.labels.to(x.device)
        sampled = normalise(x, a, s, self.frozen.sigma_data2)
        within, finite = squared_distances(sampled), torch.isfinite(x).all()
        before, self.pending = self.pending, []
        for law in self.laws:
            samples = law.on(self.grid, place)
            if samples is not None:
                forward = normalise(samples, a, s, self.frozen.sigma_data2)
                distances = within, squared_distances(sampled, forward), squared_distances(forward)
                self.pending.append(self._compare(law.name, place, distances, finite))
        self._settle(before)

    @property
    def rows(self) -> list[Row]:
        """All points so far. Raises BadData where x_t of the last one is not finite."""
        self._settle(self.pending)
        self.pending = []
        return self.settled

    @property
    def curves(self) -> dict[Reading, Curve]:
        """The same, curve by curve."""
        return self._curves if self.rows else {}

    def trends(self) -> Iterator[Row]:
        """Rows of all trends of all curves, with the verdict on each curve."""
        for reading, curve in self.curves.items():
            progress = np.array(curve.steps) / len(self.grid)
            found = trend.rows(curve.points, progress, self.settings.confidence, self.settings.seed)
            allowed = tolerance([point.value for point in curve.points], self.settings.tolerance)
            about = {**vars(reading), "verdict": verdict(found, allowed), "tolerance": allowed}
            yield from ({**row, **about} for row in found)

    def influences(self) -> Iterator[Row]:
        """Rows of what each chain and forward sample adds to points against q(x_t), which all methods share.

        Training inputs are a yardstick of each method's own, so differences between methods are not read off them.
        """
        kept = _spread(measured(len(self.grid), self.settings.times), self.settings.paired_times)
        for reading, curve in self.curves.items():
            if reading.law == ForwardSamples.name:
                for step, point in zip(curve.steps, curve.points, strict=True):
                    if step not in kept:
                        continue
                    parts = {"chains": np.float32(point.chains), "forward": np.float32(point.forward)}
                    yield {"kernel": reading.kernel, "bandwidth": reading.bandwidth, "step": step, **parts}

    def _readings(self, law: str, place: int) -> Iterator[tuple[Reading, float]]:
        """All curves against a law, with the length scales of their kernels at a place."""
        for kernel in self.settings.kernels:
            for bandwidth in self.settings.bandwidths:
                yield Reading(kernel, bandwidth, law), self.frozen.length_scale(self._clock(place), bandwidth)

    def _clock(self, place: int) -> float:
        a, s = self.grid.a[place], self.grid.s[place]
        return log_snr(a, s) if s else inf

    def _compare(self, law: str, place: int, distances: Matrices, finite: Tensor) -> Pending:
        sizes, parts, nulls = distances[1].shape, [], []
        counts = [d.numel() for d in distances]
        small = sum(counts) <= TOGETHER
        pieces = [torch.cat([d.flatten() for d in distances])] if small else [d.flatten() for d in distances]
        for reading, scale in self._readings(law, place):
            flat = [KERNELS[reading.kernel](piece, scale) for piece in pieces]
            matrices = flat[0].split(counts) if small else flat
            xx, xy, yy = (k.view_as(d) for k, d in zip(matrices, distances, strict=True))
            parts.append(sums(xx, xy, yy))
            tested = place in self.tested
            nulls.append(permutation_null(xx, xy, yy, self.labels, self.settings.statistic) if tested else None)
        arrived = device.sent(torch.cat([*parts, finite.to(parts[0].dtype).reshape(1)]))
        return Pending(law, place, (sizes[0], sizes[1]), arrived, nulls)

    def _settle(self, points: Sequence[Pending]) -> None:
        """Rows of these points."""
        for point in points:
            *_, finite = numbers = point.arrived()
            if not finite:
                raise BadData(
                    f"sampled x_t is not finite at t = {self.grid.times[point.place]:g} (step {point.place} of "
                    f"{len(self.grid)}); the trained network diverges when sampled, so train it again with a smaller "
                    "lr, or sample with clip_x0."
                )
            flats = numbers[:-1].reshape(len(point.nulls), -1)
            for (reading, scale), flat, null in zip(
                self._readings(point.law, point.place), flats, point.nulls, strict=True
            ):
                found = of_sums(flat, *point.sizes, self.settings.statistic)
                self._add(reading, point.place, self._clock(point.place), scale, found, null)

    def _add(
        self, reading: Reading, place: int, clock: float, scale: float, found: Estimate, null: np.ndarray | None
    ) -> None:
        settings = self.settings
        low, high = found.interval(settings.confidence)
        curve = self._curves.setdefault(reading, Curve())
        curve.steps.append(place)
        curve.points.append(found)
        self.settled.append(
            {
                **vars(reading),
                "statistic": settings.statistic,
                "step": place,
                "t": self.grid.times[place],
                "log_snr": clock,
                "length_scale": scale,
                "mmd2": found.value,
                "se": found.se,
                "low": low,
                "high": high,
                "n": len(found.chains),
                "m": len(found.forward),
                "confidence": settings.confidence,
                **self._null(found.value, null),
            }
        )

    def _null(self, value: float, null: np.ndarray | None) -> Row:
        if null is None:
            return {}
        quantile = np.quantile(null, self.settings.confidence, method="higher")
        return {"null_quantile": float(quantile), "p_value": p_value(value, null)}


def _tested(places: list[int], settings: Errors) -> set[int]:
    """The measured places that get the permutation null: at most `null_times`, spread evenly."""
    if not settings.permutations or not settings.null_times:
        return set()
    return _spread(places, settings.null_times)


def _spread(places: list[int], most: int | None) -> set[int]:
    """At most so many of these places, spread evenly, the last one first; None: all."""
    count = len(places) if most is None else min(most, len(places))
    return {places[round(i)] for i in np.linspace(len(places) - 1, 0, count)}
