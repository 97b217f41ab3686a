"""Errors that are the machine's and not the code's: another attempt, perhaps on another node, may do without them.

No torch import: stages without it fail too.
"""

import errno
import re
import socket
import sys
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NODE = (  # what a file server, a network or a device answers that is gone or broken, and may be back
    *(errno.EIO, errno.EREMOTEIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN),
)
GPU = (
    *("CUDA error", "CUDA driver", "CUDA unknown error", "cuDNN error", "Triton Error [CUDA]"),
    *("No CUDA GPUs", "Attempting to deserialize object on"),  # which was there when the job began
)
NO_MEMORY = ("CUDA error: out of memory", "Triton Error [CUDA]: out of memory", "STATUS_ALLOC_FAILED")
NCCL = "NCCL error"  # of the connection, or of the GPU itself where it says so:
BELOW_NCCL = ("unhandled cuda error", "Cuda failure")
OURS = (  # what a GPU says of code that asks for what cannot be: likelier a bug than a broken GPU, so no other attempt
    *("illegal memory access", "device-side assert", "misaligned address", "illegal instruction"),
    *("invalid argument", "invalid configuration argument", "invalid device function", "no kernel image"),
    *("out of resource: shared memory", "invalid usage"),
    *("stream is capturing", "during capture", "STATUS_NOT_SUPPORTED", "STATUS_BAD_PARAM", "STATUS_INVALID_VALUE"),
)


def of_machine(error: BaseException) -> str | None:
    """A sentence on what of the machine failed, and what to do; None where the code did."""
    said, host = _first_line(error), socket.gethostname()
    if disk_is_full(error):
        return f"the disk is full ({said}); free some space and run again."
    if isinstance(error, MemoryError) or errno.ENOMEM in _numbers(error) or "DefaultCPUAllocator" in str(error):
        return "the job ran out of memory; give it more with runtime.memory_mb."
    if from_gpu(error) or _begins(error, NCCL):
        if any(words in str(error) for words in OURS):
            return None
        return f"a GPU of {host} or its connection failed ({said}); if it does again, exclude that node."
    if any(number in NODE for number in _numbers(error)):
        return f"the file system or a device of {host} failed ({said}); if it does again, exclude that node."
    return None


def from_gpu(error: BaseException) -> bool:
    """Whether the GPU of this process raised it: with CUDA that may be any call after the one that was wrong."""
    below_nccl = _begins(error, NCCL) and any(words in str(error) for words in BELOW_NCCL)
    return _is(error, "AcceleratorError") or _begins(error, GPU) or below_nccl


def no_gpu_memory(error: BaseException) -> bool:
    """Whether a GPU had no memory for it: libraries have sentences of their own for that."""
    said = str(error)
    return _is(error, "OutOfMemoryError") or (isinstance(error, RuntimeError) and any(w in said for w in NO_MEMORY))


def disk_is_full(error: BaseException) -> bool:
    """Whether it, or what it was raised for, is a write that found no space."""
    return any(number in FULL for number in _numbers(error))


def _begins(error: BaseException, words: str | tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(words)


def _is(error: BaseException, name: str) -> bool:
    """Whether it is torch's error of this name."""
    kind = getattr(sys.modules.get("torch"), name, None)
    return kind is not None and isinstance(error, kind)


def _numbers(error: BaseException | None) -> Iterator[int]:
    """The errno of it and of what it was raised for; libraries in C++ raise a RuntimeError over it, in Rust they write
    it into the sentence."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            yield error.errno
        elif found := re.search(r"\(os error (\d+)\)", str(error)):
            yield int(found[1])
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
