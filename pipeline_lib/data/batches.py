"""Images in arrays: batches as .npz files, read in blocks, and as pickles, read without running what they hold."""

import contextlib
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline_lib.exits import BadData

BLOCK_BYTES = 2**23
ALLOWED = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(0).__reduce_ex__(5)[0],
    "encode": lambda text, encoding: text.encode(encoding),  # how Python 3 writes bytes in the old protocol 2
}


class _Arrays(pickle.Unpickler):
    """Loads arrays, lists, dictionaries, numbers and text; a pickle can name any function, and is denied all others."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("numpy", "_codecs") and name in ALLOWED:
            return ALLOWED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def unpickle(stream: IO[bytes], name: Path | str) -> dict[str, Any]:
    """The dictionary in a pickle of Python 2 or 3; raises BadData where it is cut short or holds more than arrays."""
    try:
        content = _Arrays(stream, encoding="latin1").load()
        return {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise BadData(f"{name} is cut short or no batch of images ({error}); get it again.") from None


def npz_blocks(path: Path, key: str) -> Iterator[np.ndarray]:
    """The rows of an array in an .npz file, some at a time, however large it is, its checksum compared at the end.

    Raises BadData where the file is cut short, damaged, or has no such array.
    """
    with _opened(path, key) as (stream, shape, dtype):
        row = dtype.itemsize * int(np.prod(shape[1:]))
        step = max(1, BLOCK_BYTES // row)
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            yield np.frombuffer(_exactly(stream, count * row), dtype).reshape(count, *shape[1:])
        stream.read(1)  # the end, where the checksum is compared


@contextlib.contextmanager
def _opened(path: Path, key: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """(stream behind the header, shape, dtype) of an array in an .npz file; what goes wrong inside becomes BadData."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            if fortran or dtype.hasobject:
                raise ValueError(f"'{key}' is no plain array in row order")
            yield stream, shape, dtype
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(f"{path} is cut short or damaged ({error}); get it again.") from None


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("its end is missing")
    return data
