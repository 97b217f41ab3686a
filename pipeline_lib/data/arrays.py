"""Array files larger than memory: rows are appended to a .npy file, and copied from one to another in blocks.

Plain writes, not a memory map: on a full disk a map ends the process with SIGBUS, and `np.save` loses the error's
number; a plain write raises OSError with ENOSPC, which can be told from a bug.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

BLOCK_BYTES = 2**25


@contextlib.contextmanager
def appending(
    path: Path, row_shape: tuple[int, ...], dtype: Any, keep: int = 0
) -> Iterator[Callable[[np.ndarray], None]]:
    """Create the .npy file `path` and yield `append(rows)`, rows (n, *row_shape); the row count is known at the end.

    `keep` rows of a file that was begun before stay. Raises OSError where the disk is full, and ValueError for rows of
    another shape or type.
    """
    dtype, count = np.dtype(dtype), keep
    with path.open("r+b" if keep else "wb") as stream:
        _write_header(stream, (0, *row_shape), dtype)
        start = stream.tell()
        stream.seek(start + keep * dtype.itemsize * math.prod(row_shape))
        stream.truncate()

        def append(rows: np.ndarray) -> None:
            nonlocal count
            if rows.shape[1:] != row_shape or rows.dtype != dtype:
                raise ValueError(f"rows are {rows.dtype} {rows.shape[1:]}, not {dtype} {row_shape}")
            stream.write(np.ascontiguousarray(rows).data)
            stream.flush()
            count += len(rows)

        yield append
        stream.seek(0)
        _write_header(stream, (count, *row_shape), dtype)
        assert stream.tell() == start  # numpy pads the header, so that the first axis can grow in place
        stream.flush()
        os.fsync(stream.fileno())


def save(path: Path, array: np.ndarray) -> None:
    """`np.save`, but a full disk can be recognised."""
    with appending(path, array.shape[1:], array.dtype) as append:
        append(array)


def copy_rows(source: Path, index: np.ndarray, target: Path) -> None:
    """Write the rows `index` of the .npy file `source`, in that order, to `target`, at most BLOCK_BYTES at once."""
    mapped = np.load(source, mmap_mode="r")
    shape, dtype, rows = mapped.shape[1:], mapped.dtype, max(1, BLOCK_BYTES // mapped[:1].nbytes)
    with appending(target, shape, dtype) as append:
        for start in range(0, len(index), rows):
            # Mapped anew for every block: pages once read would count as memory of this process.
            append(np.load(source, mmap_mode="r")[index[start : start + rows]])


def _write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
