"""What every process of the tests of data parallelism runs.

It works in the current folder, on the data of data.json, and leaves `NAME.json` for every training NAME that it ends.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from pipeline_lib import parallel
from pipeline_lib.config.models import Sampling
from pipeline_lib.exits import Bug, TryAgain
from pipeline_lib.parallel import join
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.training import train
from pipeline_lib.training.loop import Trainer
from tests.conftest import RUNTIME, tiny_run
from tests.training.parallel_cases import CASES
from tests.training.test_resume import After


def all_cases(data: Manifest, micro_batch: int | None = None) -> None:
    """Train every case whose groups stay whole."""
    for name, changes in CASES.items():
        train.run(tiny_run(**changes), {**RUNTIME, "micro_batch": micro_batch}, Path(f"{name}.json"), data)


def stopped(data: Manifest, after: int) -> None:
    """Train the case with the most to remember, for so many steps; 0: to the end. Only the last process is told."""
    told = after and int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
    left = pytest.raises(TryAgain, match="the next attempt goes on") if after else nullcontext()
    with pytest.MonkeyPatch.context() as patch, left:
        if told:
            patch.setattr(train, "Stop", lambda minutes: After(after))
        train.run(tiny_run(**CASES["adm by loss"]), RUNTIME, Path("stopped.json"), data)


def drifting(data: Manifest) -> None:
    """The weights of one process change behind the others' back: ends with the number of the exception's code."""
    original = Trainer.meet

    def meet(self: Trainer, *given: object) -> object:
        if self.world.rank == 1:
            with torch.no_grad():
                next(self.denoiser.parameters()).view(-1)[0] += 1e-3
        return original(self, *given)

    Trainer.meet = meet
    try:
        train.run(tiny_run(), RUNTIME, Path("drifting.json"), data)
    except Bug as error:
        Path(f"drifted-{torch.distributed.get_rank()}.txt").write_text(str(error))


def sampled(images: int, nfe: int = 2, seed: int = 0) -> None:
    """Draw from the training `ddpm`, by 16 images."""
    sampling = Sampling(sampler={"name": "ancestral"}, nfe=[nfe], images=images, seed=seed)
    _stage.run(sampling.model_dump(mode="json"), {"batch": 16}, Path(f"{images}.json"), Manifest.load("ddpm.json"))


def sums() -> None:
    """What the processes of a world tell each other."""
    with join() as world:
        total = sum(range(1, world.size + 1))
        for large in (parallel.LARGE, 5):  # put together first, or added up where they are
            parallel.LARGE = large
            one, other = torch.full((2, 3), float(world.rank + 1)), torch.arange(4.0) * (world.rank + 1)
            turned = torch.arange(54.0).view(3, 2, 3, 3).to(memory_format=torch.channels_last)
            expected = turned * world.size
            world.add_([one, other, turned])
            assert torch.equal(one, torch.full((2, 3), float(total)))
            assert torch.equal(other, torch.arange(4.0) * total)
            assert torch.equal(turned, expected)
        rows = world.gather(torch.tensor([[world.rank, 7]]))
        assert rows.tolist() == [[r, 7] for r in range(world.size)]
        assert world.total(world.rank, 1) == [total - world.size, world.size]
        assert world.told(5 if world.leads else 0) == 5
        assert [i for r in range(world.size) for i in share_of(world, r)] == list(range(12))


def share_of(world: object, rank: int) -> range:
    """The share of another process."""
    return type(world)(rank, world.size).share(12)


def work(job: str, *arguments: str) -> None:
    """Do a job, as one of the processes of a world or as the only one."""
    with join():
        if job == "sums":
            sums()
        elif job == "sampled":
            for images in arguments:
                sampled(int(images))
        else:
            {"all": all_cases, "stopped": stopped, "drifting": drifting}[job](
                Manifest.load("data.json"), *map(int, arguments)
            )


def ranked(world: Mapping[str, object], folder: Path, job: str, *arguments: str) -> None:
    """Do a job in a folder as one of the processes of a world, which torchrun's variables describe."""
    os.environ |= {name: str(value) for name, value in world.items()}
    os.chdir(folder)
    torch.set_num_threads(1)
    work(job, *arguments)
