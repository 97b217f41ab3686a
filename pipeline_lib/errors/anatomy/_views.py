"""What measures are shown of one trained run, sampling and grid, and the record that they make."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.config.base import build_part
from pipeline_lib.config.models import Anatomy, Sampling
from pipeline_lib.diffusion.denoiser import Denoiser, Denoising, Prediction
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.errors.anatomy import Measure, Reading
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.samplers._stage import Counted, draw, labels_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Pairs:
    """Training images x_0 (M,C,H,W), each with the eps that it keeps at every t; labels (M,) or None."""

    x0: Tensor
    eps: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Subject:
    """What is measured: a trained run, how it is sampled, and the forward samples that all methods share."""

    denoiser: Denoising
    sampling: Sampling
    nfe: int
    pairs: Pairs
    frozen: Bandwidths
    settings: Anatomy
    classes: int = 0
    batch: int = 500
    guide: Denoiser | None = None

    @cached_property
    def grid(self) -> Grid:
        return self.denoiser.path.grid(self.sampling.steps(self.nfe), self.sampling.spacing)

    @property
    def observed(self) -> int:
        """Forward samples that the network is given."""
        return min(self.settings.observed, len(self.pairs.x0))

    @property
    def images(self) -> int:
        """Images that single steps and chains start from; a half is left for MMD^2 against others."""
        return min(self.settings.images, len(self.pairs.x0) // 2)

    def labels(self, count: int) -> Tensor | None:
        """Labels of the first images, where the network or its guide is given labels."""
        return self.pairs.labels[:count] if self.classes and self.pairs.labels is not None else None

    def true(self, place: int, count: int) -> Tensor:
        """The first forward samples x_t at a place in the grid."""
        return self.grid.a[place] * self.pairs.x0[:count] + self.grid.s[place] * self.pairs.eps[:count]

    def scale(self, place: int) -> float:
        """Root mean square of a pixel of x_t, by which MMD^2 is normalised too."""
        return sqrt(self.grid.a[place] ** 2 * self.frozen.sigma_data2 + self.grid.s[place] ** 2)

    @torch.no_grad()
    def predict(self, x: Tensor, place: int, labels: Tensor | None) -> Prediction:
        """The network's own prediction at x (B,C,H,W), uncorrected and not clipped."""
        return Counted(self.denoiser, self.batch)(x, self.grid.times[place], labels)

    def simulate(self, x: Tensor, index: Tensor, first: int, end: int | None = None, observe: Any = None) -> Tensor:
        """Chains of the images `index` (B,) from x (B,C,H,W) at place `first`, by the sampler with its corrections."""
        labels = self.labels(len(self.pairs.x0))
        chosen = None if labels is None else labels[index]
        shape = tuple(x.shape[1:])
        about = (self.denoiser, self.sampling, self.nfe, index, shape, self.batch, chosen, observe, self.guide)
        return draw(*about, start=x, first=first, end=end)


class _Place:
    """A place in the grid."""

    def __init__(self, subject: Subject, place: int) -> None:
        self.subject, self.place = subject, place
        self.t, self.a, self.s = (part[place] for part in (subject.grid.times, subject.grid.a, subject.grid.s))

    @property
    def is_clean(self) -> bool:
        """Whether this is x_0, where the network is not called."""
        return self.place == len(self.subject.grid)

    @property
    def step(self) -> Step:
        """The planned step from here."""
        return self.subject.grid.step(self.place)

    @property
    def row(self) -> Row:
        return {"step": self.place, "t": self.t, "log_snr": log_snr(self.a, self.s) if self.s else inf}


class At(_Place):
    """A measured place of the sampling pass: sampled x_t beside forward samples, and what the network says to both."""

    def __init__(self, subject: Subject, place: int, x: Tensor) -> None:
        """`x` (N,C,H,W), all sampled chains."""
        super().__init__(subject, place)
        self.x, self.count = x, subject.observed
        self.x0, self.eps = subject.pairs.x0[: self.count], subject.pairs.eps[: self.count]

    @cached_property
    def forward(self) -> Tensor:
        """x_t (count,C,H,W) of the forward process."""
        return self.subject.true(self.place, self.count)

    @cached_property
    def trained(self) -> Prediction:
        """The prediction at `forward`."""
        return self.subject.predict(self.forward, self.place, self.subject.labels(self.count))

    @cached_property
    def sampled(self) -> Prediction:
        """The prediction at the first of the sampled chains."""
        x, subject = self.x[: self.count], self.subject
        index = torch.arange(len(x), device=x.device)
        labels = labels_of(index, subject.classes, subject.sampling.seed) if subject.classes else None
        return subject.predict(x, self.place, labels)

    @cached_property
    def stepped(self) -> Tensor:
        """x_t (images,C,H,W) here after one step of the sampler from the true x_t of the place before; not at x_T."""
        images, before = self.subject.images, self.place - 1
        index = torch.arange(images, device=self.x.device)
        return self.subject.simulate(self.subject.true(before, images), index, before, self.place)

    @cached_property
    def after_step(self) -> Prediction:
        """The prediction at `stepped`."""
        return self.subject.predict(self.stepped, self.place, self.subject.labels(self.subject.images))


class After(_Place):
    """A measured place of chains that start from true x_t: at that place itself, or below it."""

    def __init__(self, subject: Subject, place: int, start: float, first: int, step: Step | None, x: Tensor) -> None:
        """`start`: share of T, which is place `first`. `step`: that which is made from here, as corrections moved it;
        None at x_0. `x` (images + perturbed,C,H,W): chains, then those from a perturbed x_t."""
        super().__init__(subject, place)
        self.start, self.first, self.made = start, first, step
        self.x, self.twins = x[: subject.images], x[subject.images :]
        self.x0 = subject.pairs.x0[: subject.images]

    @cached_property
    def prediction(self) -> Prediction:
        """The prediction at `x`."""
        return self.subject.predict(self.x, self.place, self.subject.labels(len(self.x)))

    @property
    def perturbation(self) -> Tensor:
        """What was added to x_t of the twins at the start, (perturbed,C,H,W)."""
        return perturbation(self.subject, self.first)


class Dissection:
    """All measures of one subject: `see` is shown x_t at each measured place, `rows` are the record."""

    def __init__(self, subject: Subject, confidence: float) -> None:
        self.subject, self.confidence = subject, confidence
        self.measures: dict[str, Measure] = {
            one["name"]: build_part("errors/anatomy", one) for one in subject.settings.measures
        }
        self.places: list[int] = []
        self.rows: list[Row] = []

    def see(self, place: int, x: Tensor) -> None:
        """Measure at a place with the sampled x_t (N,C,H,W)."""
        self.places.append(place)
        here = At(self.subject, place, x)
        for name, measure in self.measures.items():
            self._add(name, measure.at(here), here.row)

    def finish(self) -> None:
        """The chains from true x_t, and what is said of the whole pass."""
        asked = {name: one for name, one in self.measures.items() if one.after_leak}
        for start, first in starts(self.subject).items() if asked else ():
            self._leak(start, first, asked)
        for name, measure in self.measures.items():
            self._add(name, measure.whole(), {})

    def _leak(self, start: float, first: int, asked: dict[str, Measure]) -> None:
        wanted, end = {p for p in self.places if p > first} | {first}, len(self.subject.grid)

        def show(place: int, step: Step | None, x: Tensor) -> None:
            here = After(self.subject, place, start, first, step, x)
            for name, measure in asked.items():
                self._add(name, measure.after(here), {"start": start, **here.row})

        def observe(step: Step, x: Tensor, prediction: Prediction) -> None:
            if step.index in wanted:
                show(step.index, step, x)

        images = self.subject.images
        x = self.subject.true(first, images)
        index = torch.arange(images, device=x.device)
        if any(one.perturbed for one in asked.values()):
            added = perturbation(self.subject, first)
            x, index = torch.cat((x, x[: len(added)] + added)), torch.cat((index, index[: len(added)]))
        show(end, None, self.subject.simulate(x, index, first, observe=observe))

    def _add(self, measure: str, readings: Iterable[Reading], where: Row) -> None:
        for one in readings:
            low, high = one.found.interval(self.confidence)
            value = {"value": one.found.value, "se": one.found.se, "low": low, "high": high, "n": one.n}
            self.rows.append({"measure": measure, "reading": one.name, **where, **value, "confidence": self.confidence})


def starts(subject: Subject) -> dict[float, int]:
    """Share of T -> the place in the grid nearest to it; on a short grid the first of the shares that fall together.

    Where t is sigma, shares are those of the steps of the grid, so that 1 is always x_T.
    """
    grid, total = subject.grid, getattr(subject.denoiser.path, "timesteps", None)
    clock = [grid.times[i] / total if total else 1 - i / len(grid) for i in range(len(grid))]
    found: dict[int, float] = {}
    for share in sorted(subject.settings.starts, reverse=True):
        found.setdefault(min(range(len(grid)), key=lambda i: abs(clock[i] - share)), share)
    return {share: place for place, share in found.items()}


def perturbation(subject: Subject, place: int) -> Tensor:
    """Normal numbers (perturbed,C,H,W) of the configured size, over the root mean square of x_t; the same at all t."""
    x0 = subject.pairs.x0[: min(subject.settings.perturbed, subject.images)]
    index = torch.arange(len(x0), device=x0.device)
    normal = Noise(subject.sampling.seed, x0.device).normal(Stream.PERTURBATION, index, 0, x0.shape[1:])
    return subject.settings.perturbation * subject.scale(place) * normal
