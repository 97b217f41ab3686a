"""What a way of tuning may ask: scores of chains that nothing else sees, and norms of predicted eps."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config.base import build_part, part
from pipeline_lib.config.models import Sampling
from pipeline_lib.diffusion.denoiser import Denoiser, Denoising, Prediction, perturb
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import TryAgain
from pipeline_lib.records.files import digest, write_json
from pipeline_lib.samplers._stage import Counted, draw, labels_of, onward
from pipeline_lib.tuning._ends import CONSTANTS

FIRST = 1 << 30  # number of the first tuning chain: samples and measured chains count from 0 and never come so far
NORM_RATIO = "eps norm, sampled over true"
log = logging.getLogger(__name__)

Found = dict[str, Any] | None  # options of a correction with its name; None: no correction
Row = dict[str, Any]


class Data(Protocol):
    """The training images as the bench reads them: `Prepared`."""

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def floats(self, index: slice, device: torch.device | str) -> Tensor: ...


class Trials:
    """The rows of all trials of one tuning, written after each, so that an interrupted search asks for none again."""

    def __init__(self, path: Path, interrupted: Callable[[], str | None] = lambda: None) -> None:
        """`interrupted` says why no further trial should begin, or None."""
        self.path, self.interrupted = path, interrupted
        self.rows: list[Row] = json.loads(path.read_text()) if path.is_file() else []

    def get(self, key: str) -> Row | None:
        """The row of a trial that was made."""
        return next((row for row in self.rows if row["key"] == key), None)

    def add(self, key: str, row: Row) -> Row:
        """Keep a trial."""
        self.rows.append({"key": key, "trial": len(self.rows), **row})
        write_json(self.path, self.rows)
        return self.rows[-1]

    def go_on(self) -> None:
        """Raises TryAgain where the next trial should not begin."""
        if reason := self.interrupted():
            raise TryAgain(f"{reason}; {len(self.rows)} trials are kept, and the search goes on in the next attempt.")


@dataclass
class Bench:
    """One trained run at one number of calls.

    Every trial uses the same chains, `images` from number FIRST on, so that trials differ in their constants alone.
    `distance` scores batches of x_0 as they come out of the sampler; `metric` is its name.
    """

    denoiser: Denoising
    sampling: Sampling
    nfe: int
    shape: tuple[int, ...]
    images: int
    data: Data
    distance: Callable[[Iterable[Tensor]], float]
    metric: str
    trials: Trials
    classes: int = 0
    batch: int = 500
    device: torch.device | str = "cpu"
    guide: Denoiser | None = None
    counted: Counted = field(init=False)

    def __post_init__(self) -> None:
        self.counted = Counted(self.denoiser, self.batch)

    @property
    def grid(self) -> Grid:
        return self.denoiser.path.grid(self.steps, self.sampling.spacing)

    @property
    def steps(self) -> int:
        return self.sampling.steps(self.nfe)

    def score(self, correction: Found, round_name: str) -> float:
        """The distance of the tuning chains that are drawn with a correction before those of the sampling."""
        correction = complete(correction)
        return self.trial(
            digest([self.metric, correction]),
            lambda: (self.distance(self.chains(correction)), None),
            {"round": round_name, "metric": self.metric, **columns(correction)},
        )["score"]

    def trial(self, key: str, measure: Callable[[], tuple[float, float | None]], about: Mapping[str, Any]) -> Row:
        """The row of a trial, whose value and standard error are measured unless they were before.

        Raises TryAgain where time is up.
        """
        row = self.trials.get(key)
        if row is None:
            self.trials.go_on()
            start, calls = time.monotonic(), self.counted.images
            value, se = measure()
            spent = {"calls": self.counted.images - calls, "seconds": time.monotonic() - start}
            row = self.trials.add(key, {"images": self.images, **about, "score": value, "se": se, **spent})
            log.info("%d calls, %s: %s %.5g with %s", self.nfe, row["round"], row["metric"], value, row["options"])
        return row

    def chains(self, correction: Found) -> Iterator[Tensor]:
        """x_0 (B, *shape) of the tuning chains, block by block."""
        corrections = [*([correction] if correction else []), *self.sampling.corrections]
        sampling = self.sampling.model_copy(update={"corrections": corrections})
        for start in range(0, self.images, self.batch):
            index = torch.arange(FIRST + start, FIRST + min(start + self.batch, self.images), device=self.device)
            labels = labels_of(index, self.classes, sampling.seed) if self.classes else None
            yield draw(self.counted, sampling, self.nfe, index, self.shape, self.batch, labels, guide=self.guide)

    @property
    def known(self) -> int:
        """Training images of which norms are taken."""
        return min(self.images, len(self.data))

    def true(self, place: int) -> Tensor:
        """x_t (N, *shape) of q(x_t | x_0) at a place of the grid, with the noise that the tuning chains begin with."""
        x0, path = self.data.floats(slice(0, self.known), self.device), self.denoiser.path
        eps = path.eps(Noise(self.sampling.seed, x0.device), Stream.PRIOR, self._index(), 0, x0.shape[1:])
        return perturb(path, x0, torch.full((self.known,), self.grid.times[place], device=x0.device), eps)

    def norms(self, place: int, x: Tensor) -> Tensor:
        """(N,) squared norms of the eps that the network predicts at x, where the sampler asks first."""
        return squared(self._run(place, place, x)[1])

    def advance(self, place: int, x: Tensor, factor: float, scaled: str) -> tuple[Tensor, Tensor]:
        """x after the step from `place`, with its eps divided by `factor`, and the norms of the next predicted eps."""
        factors = [1.0] * self.steps
        factors[place] = factor
        options = complete({"name": "epsilon-scaling", "factors": factors, "scaled": scaled})
        x, eps = self._run(place, place + 1, x, options)
        return x, squared(eps)

    def _run(self, place: int, seen: int, x: Tensor, correction: Found = None) -> tuple[Tensor, Tensor]:
        """x and the network's own eps at the place `seen`, from x at `place`; it is not the end of the grid."""
        found: dict[str, Tensor] = {}

        def first(prediction: Prediction, step: Step) -> Prediction:
            if step.index == seen:
                found.setdefault("eps", prediction.eps)
            return prediction

        def observe(step: Step, x: Tensor, prediction: Prediction) -> None:
            if step.index == seen:
                found["x"] = x

        grid = self.grid.part(place, seen + 1)
        own = [build_part("samplers/corrections", correction, self.denoiser.path, len(grid))] if correction else []
        labels = self.data.labels
        wanted = torch.from_numpy(labels[: self.known]).to(x.device) if self.classes and labels is not None else None
        arguments = (grid, x, self._index(), self.batch, wanted, observe, self.guide, [first, *own])
        onward(self.counted, self.sampling, *arguments)
        return found["x"], found["eps"]

    def _index(self) -> Tensor:
        return torch.arange(FIRST, FIRST + self.known, device=self.device)


def squared(eps: Tensor) -> Tensor:
    """(N,) squared norms, float64."""
    return eps.flatten(1).double().square().sum(1)


def norm_ratio(sampled: Tensor, true: Tensor) -> tuple[float, float]:
    """Root mean squared norm of eps over that at the true x_t, and its standard error: both (N,), paired by image."""
    ratio = float((sampled.mean() / true.mean()).sqrt())
    influence = sampled / sampled.mean() - true / true.mean()
    return ratio, ratio * float(influence.std()) / (2 * len(true) ** 0.5)


def complete(correction: Found) -> Found:
    """The options of a correction with all its defaults."""
    return part("samplers/corrections", correction, "tuning") if correction else None


def columns(correction: Found) -> Row:
    """What a row of TRIALS says of a correction."""
    given = correction or {}
    return {"options": json.dumps(correction), **{name: given.get(name) for name in CONSTANTS}}
