"""Array files larger than memory: rows are appended to a .npy file, and copied from one to another in blocks.

Plain writes, not a memory map: on a full disk a map ends the process with SIGBUS, and `np.save` loses the error's
number; a plain write raises OSError with ENOSPC, which can be told from a bug.
"""

import contextlib
import errno
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


def reserve(path: Path, shape: tuple[int, ...], dtype: Any) -> int:
    """Create the .npy file `path` with room for all of `shape`; the byte at which its first row is to be written.

    Raises OSError where the disk has no such room: now, and not hours later.
    """
    with path.open("wb") as stream:
        _write_header(stream, shape, np.dtype(dtype))
        start = stream.tell()
        total = start + math.prod(shape) * np.dtype(dtype).itemsize
        stream.truncate(total)
        try:
            os.posix_fallocate(stream.fileno(), 0, total)
        except AttributeError:
            pass  # macOS
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that cannot promise room
                raise
    return start


def keep_rows(path: Path, index: np.ndarray) -> None:
    """Leave only the rows `index`, which ascend, in the .npy file `path`; in place, at most BLOCK_BYTES at once."""
    mapped = np.load(path, mmap_mode="r")
    shape, dtype, place = (len(index), *mapped.shape[1:]), mapped.dtype, mapped.offset
    with path.open("r+b") as stream:
        for rows in _read_rows(path, index):  # what is overwritten lies before them
            stream.seek(place)
            place += stream.write(rows.data)
            stream.flush()
        stream.truncate(place)
        stream.seek(0)
        _write_header(stream, shape, dtype)


def save(path: Path, array: np.ndarray) -> None:
    """`np.save`, but a full disk can be recognised."""
    with appending(path, array.shape[1:], array.dtype) as append:
        append(array)


def copy_rows(source: Path, index: np.ndarray, target: Path) -> None:
    """Write the rows `index` of the .npy file `source`, in that order, to `target`, at most BLOCK_BYTES at once."""
    mapped = np.load(source, mmap_mode="r")
    with appending(target, mapped.shape[1:], mapped.dtype) as append:
        for rows in _read_rows(source, index):
            append(rows)


def _read_rows(path: Path, index: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of the rows `index`, by plain reads: a map would bring in a megabyte of its surroundings with each row."""
    mapped = np.load(path, mmap_mode="r")
    size, start = mapped[:1].nbytes, mapped.offset
    step = max(1, BLOCK_BYTES // size)
    with path.open("rb", buffering=0) as stream:
        for first in range(0, len(index), step):
            places = index[first : first + step].tolist()
            rows = np.empty((len(places), *mapped.shape[1:]), mapped.dtype)
            bytes_of = rows.data.cast("B")
            for number, place in enumerate(places):
                stream.seek(start + place * size)
                stream.readinto(bytes_of[number * size : (number + 1) * size])
            yield rows


def _write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
