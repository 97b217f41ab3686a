"""Which device a job computes on, and with how many digits."""

import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline_lib.exits import BadConfig, PipelineError, TryAgain

log = logging.getLogger(__name__)
T = TypeVar("T")
_plain = [False]
_held: list[int] = []  # the GPU of this process
PLACES = 16  # jobs on one GPU that are told apart


def pick(locks: Path = Path("work/locks")) -> torch.device:
    """The GPU of this process, the same at every call, or the CPU.

    Of several visible GPUs the first that fewest other jobs of this folder hold; processes of one job never share one.
    Raises TryAgain where SLURM gave the job a GPU that CUDA cannot use.
    """
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""  # whoever says so wants the CPU
        if torch.version.cuda and os.environ.get("SLURM_JOB_GPUS") and not hidden:
            raise TryAgain(f"SLURM gave this job a GPU of {socket.gethostname()}, but CUDA finds none that works.")
        return torch.device("cpu")
    if not _held:
        here, rank = (int(os.environ.get(name, usual)) for name, usual in (("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        mine = range(rank, torch.cuda.device_count(), here)
        _held.append(_least_held(locks, mine) if len(mine) > 1 else rank)
    torch.cuda.set_device(_held[0])
    return torch.device(f"cuda:{_held[0]}")


def _least_held(locks: Path, indices: Sequence[int]) -> int:
    """The first of these GPUs that fewest others hold, held from now on: its file stays locked until the process ends.

    Files are named by the card, since an index means another one wherever CUDA_VISIBLE_DEVICES differs.
    """
    locks.mkdir(parents=True, exist_ok=True)
    cards = [f"{socket.gethostname()}-{torch.cuda.get_device_properties(i).uuid}" for i in indices]
    with (locks / socket.gethostname()).open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)  # one process after the other looks and takes
        except OSError:  # a file system without locks
            return indices[0]
        free = [_free([locks / f"{card}-{place}" for place in range(PLACES)]) for card in cards]
        best = max(range(len(free)), key=lambda i: len(free[i]))
        kept = free[best][:1]
        for handle in (handle for handles in free for handle in handles if handle not in kept):
            os.close(handle)
    return indices[best]


def _free(paths: Sequence[Path]) -> list[int]:
    """Open files, locked now, of those that no other process has locked."""
    found = []
    for path in paths:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(handle)
        except BlockingIOError:
            os.close(handle)
    return found


@cache
def _can_compile() -> bool:
    return find_spec("triton") is not None


def has_kernels() -> bool:
    """Whether our own kernels are used on GPUs here: they are written in Triton, which comes with torch for GPUs."""
    return not _plain[0] and _can_compile()


@contextmanager
def plain() -> Iterator[None]:
    """Torch's own operations inside, which have second derivatives."""
    before, _plain[0] = _plain[0], True
    try:
        yield
    finally:
        _plain[0] = before


def recorded(make: Callable[[], T], what: str, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, T] | None:
    """A CUDA graph of what `make` does, and its result; None, and a line in the log, where it cannot be recorded."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    try:
        with torch.cuda.graph(graph, pool=pool):
            result = make()
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        log.warning("%s cannot be recorded as a CUDA graph, and takes longer (%s)", what, said)
        return None
    return graph, result


def use(precision: str) -> None:
    """Let GPUs round the factors of float32 products to TF32, or not (`float32`), and time cuDNN's algorithms."""
    torch.backends.cudnn.benchmark = True
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
        backend.fp32_precision = "ieee" if precision == "float32" else "tf32"


def halves(precision: str, where: torch.device) -> bool:
    """Whether networks compute in bfloat16 there; a GPU that cannot says so once and takes TF32."""
    if precision != "bf16" or where.type != "cuda":
        return False
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    if not able:
        log.warning("this GPU has no bfloat16: it computes in float32 with TF32 where it can, and takes longer.")
    return able


def crowded(where: torch.device | None) -> bool:
    """Whether others hold a good part of the GPU's memory, so that a job which does not fit may fit later."""
    if not torch.cuda.is_available():
        return True
    free, total = torch.cuda.mem_get_info(where)
    return total - free - torch.cuda.memory_reserved(where) > 0.2 * total


def no_room(what: str, advice: str, where: torch.device | None = None) -> PipelineError:
    """What to raise where something does not fit the GPU even in the smallest pieces."""
    if crowded(where):
        return TryAgain(f"{what} do not fit the GPU, whose memory others use as well; the next attempt may fit.")
    return BadConfig(f"{what} do not fit the memory of the GPU; {advice}.")


def sent(x: torch.Tensor) -> Callable[[], np.ndarray]:
    """Start the way of x to the host; what is returned waits for it. So the host goes on while a GPU works."""
    if not x.is_cuda:
        return x.numpy
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> np.ndarray:
        arrived.synchronize()
        return host.numpy()

    return wait


@contextmanager
def full_float32(device_type: str) -> Iterator[None]:
    """No autocast, TF32 or bfloat16 sums inside: any would leave three digits of a difference of large numbers.

    On a GPU torch's convolutions are in TF32 unless told otherwise. Per backend: the older
    torch.set_float32_matmul_precision raises where a caller has used these.
    """
    gpu, cpu = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), torch.backends.mkldnn  # type: ignore[attr-defined]
    backends = *gpu, cpu.matmul, cpu.conv  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
