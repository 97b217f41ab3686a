"""The sampled x_t that the cumulative error is measured on, kept in scratch so that an estimate reruns alone."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config.models import Sampling
from pipeline_lib.diffusion.denoiser import Denoiser, Denoising, Prediction
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.records.files import atomic, digest, write_json
from pipeline_lib.samplers._stage import VERSION as SAMPLED
from pipeline_lib.samplers._stage import Counted, draw, labels_of

SCRATCH = Path("work/chains")
VERSION = 1
log = logging.getLogger(__name__)

Times = int | Literal["every"]
See = Callable[[int, Tensor], None]


def measured(steps: int, times: Times) -> list[int]:
    """Places in a grid of `steps` steps: all, or so many spread evenly, with x_T (0) and x_0 (`steps`) among them."""
    if times == "every":
        return list(range(steps + 1))
    places = np.linspace(0, steps, min(max(times, 2), steps + 1))
    return [round(place) for place in places]


@dataclass(frozen=True)
class Chains:
    """N chains, numbered 0 to N-1, of one trained run and one number of steps.

    `weights` is the sha256 of the trained weights, those of `guide` with them, which keys the scratch; `classes` is 0
    where nothing asks for labels.
    """

    denoiser: Denoising
    weights: str
    sampling: Sampling
    nfe: int
    count: int
    shape: tuple[int, int, int]
    classes: int = 0
    batch: int = 500
    device: torch.device | str = "cpu"
    guide: Denoiser | None = None

    @property
    def grid(self) -> Grid:
        return self.denoiser.path.grid(self.sampling.steps(self.nfe), self.sampling.spacing)

    def visit(self, times: Times, see: See) -> int:
        """Call `see(place in the grid, x_t (N,C,H,W))` at the measured t in order; returns network calls per image.

        'every' streams and stores nothing; else x_t come from scratch, after a simulation where they are not there.
        Raises TryAgain where the disk is full.
        """
        places = measured(len(self.grid), times)
        if times == "every":
            return self._simulate(places, see)
        folder = self.scratch(places)
        if not _complete(folder):
            self._fill(folder, places)
        for place in places:
            see(place, torch.from_numpy(np.load(_file(folder, place))).to(self.device))
        return json.loads((folder / "done.json").read_text())["calls"]

    def scratch(self, places: list[int]) -> Path:
        """The folder of these chains; it is complete where done.json and all that it lists are there."""
        drawn = {k: v for k, v in self.sampling.drawn().items() if k not in ("images", "nfe")}
        key = {"weights": self.weights, "sampling": drawn, "nfe": self.nfe, "count": self.count, "places": places}
        return SCRATCH / digest({"version": [VERSION, SAMPLED], **key})[:16]

    def _fill(self, folder: Path, places: list[int]) -> None:
        """Simulate into a folder of this job's own, renamed when complete: two jobs may want the same chains."""
        log.info("%d chains of %d calls are not in scratch (%s): simulating them", self.count, self.nfe, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            calls = self._simulate(places, lambda place, x: _save(_file(part, place), x))
            write_json(part / "done.json", {"calls": calls, "places": places})
            if not _complete(folder):
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        except OSError:  # another job put the same chains there first
            if not _complete(folder):
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _simulate(self, places: Collection[int], see: See) -> int:
        index = torch.arange(self.count, device=self.device)
        labels = labels_of(index, self.classes, self.sampling.seed) if self.classes else None
        counted, wanted, last = Counted(self.denoiser, self.batch), set(places), len(self.grid)

        def observe(step: Step, x: Tensor, prediction: Prediction) -> None:
            if step.index in wanted:
                see(step.index, x)

        x0 = draw(counted, self.sampling, self.nfe, index, self.shape, self.batch, labels, observe, self.guide)
        see(last, x0)
        return round(counted.images / self.count)


def _complete(folder: Path) -> bool:
    done = folder / "done.json"
    return done.is_file() and all(_file(folder, place).is_file() for place in json.loads(done.read_text())["places"])


def _file(folder: Path, place: int) -> Path:
    return folder / f"{place:05d}.npy"


def _save(path: Path, x: Tensor) -> None:
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, x.to(torch.float32).cpu().numpy())
