"""Which device a job computes on."""

import fcntl
import os
import socket
from pathlib import Path

import torch

_held: list[int] = []  # lock files stay open, and so locked, until the process ends


def pick(locks: Path = Path("work/locks")) -> torch.device:
    """The GPU of this job, or the CPU. Of several visible GPUs the first that no other job of this folder holds."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1:
        return torch.device("cuda:0")
    locks.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        handle = os.open(locks / f"{socket.gethostname()}-gpu{index}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        _held.append(handle)
        torch.cuda.set_device(index)
        return torch.device(f"cuda:{index}")
    return torch.device("cuda:0")
