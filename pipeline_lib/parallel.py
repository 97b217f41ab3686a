"""The processes of one job: what each of them does, what they add up, and which of them writes.

torch.distributed.run (torchrun) tells each process by environment variables who it is. One process alone, the usual
case, needs none of this: every method is then the identity.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from pipeline_lib import faults
from pipeline_lib.exits import BadConfig, TryAgain

BUSY = timedelta(hours=1)  # the others wait so long while the first draws a grid or writes a checkpoint
PATIENCE = timedelta(days=30)  # and so long while it waits for another trainer to end
LARGE = 2**22  # elements that are added up where they are; smaller tensors are put together first
log = logging.getLogger(__name__)


class World:
    """Process number `rank` of `size`."""

    def __init__(self, rank: int = 0, size: int = 1, waiting: Any = None) -> None:
        """`waiting`: the group of processes in which the others wait for what the first says."""
        self.rank, self.size, self._waiting = rank, size, waiting

    @property
    def leads(self) -> bool:
        """Whether it is the first: it alone writes files."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of `count` things that is this process's, in order; `size` must divide `count`."""
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add_(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors, of any shapes and of one device, by their sums over processes: equal in all."""
        if self.size == 1:
            return
        import torch.distributed as dist

        rows = [as_they_lie(one.detach())[0] for one in tensors]
        small = [row for row in rows if len(row) < LARGE]
        together = [torch.cat(small)] if small else []
        with _together():
            for row in (*together, *(row for row in rows if len(row) >= LARGE)):
                dist.all_reduce(row)
        for flat in together:
            torch._foreach_copy_(small, flat.split([len(row) for row in small]))

    def gather(self, rows: Tensor) -> Tensor:
        """(n, ...) of every process, one after the other; all give equally many."""
        if self.size == 1:
            return rows
        import torch.distributed as dist

        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with _together():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def copy_(self, values: Tensor) -> None:
        """Replace values by those of the first process."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _together():
            dist.broadcast(values, 0)

    def total(self, *counts: int) -> list[int]:
        """Each count summed over processes. No GPU is waited for."""
        if self.size == 1:
            return list(counts)
        import torch.distributed as dist

        sums = torch.tensor(counts, dtype=torch.int64)
        with _together():
            dist.all_reduce(sums)
        return sums.tolist()

    def told(self, word: int = 0) -> int:
        """The number that the first process gives; the others wait for it, for days if they must."""
        if self.size == 1:
            return word
        import torch.distributed as dist

        said = torch.tensor(word)
        with _together():
            dist.broadcast(said, 0, group=self._waiting)
        return int(said)


def as_they_lie(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views (n,) of tensors of one shape, their elements in the order of the first one's addresses.

    So weights that lie channels last are copied and added in one piece. Raises RuntimeError where one leaves gaps in
    memory, or lies otherwise than the first.
    """
    order = sorted(range(tensors[0].ndim), key=tensors[0].stride, reverse=True)
    return tuple(x.permute(order).view(-1) for x in tensors)


ALONE = World()
_joined: list[World] = []  # the world that this process is in


@contextlib.contextmanager
def join() -> Iterator[World]:
    """The world of this process while the block runs; inside it again, the same.

    Raises BadConfig where a host has fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or _joined:
        yield _joined[0] if _joined else ALONE
        return
    import torch.distributed as dist

    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if gpus and here > gpus:
        raise BadConfig(f"{here} processes want a GPU each, but this host shows {gpus}; lower runtime.processes.")
    with _together():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=BUSY)
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
    world = World(dist.get_rank(), size, waiting)
    if world.leads:
        log.info("%d processes work together", size)
    else:
        logging.getLogger("pipeline_lib").setLevel(logging.WARNING)  # progress is told once
    _joined.append(world)
    yield world
    _joined.clear()
    dist.destroy_process_group()


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Where all processes must take part: if one has left, the others leave too, and its own sentence says why.

    An error of this process's own GPU, which CUDA may tell only here, is passed on as what it is.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        if faults.from_gpu(error):
            raise
        what = str(error).strip().splitlines()[0]
        raise TryAgain(f"another process of this job has left or does not answer ({what[:200]}).") from error
