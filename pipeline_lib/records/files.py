"""Small file helpers: atomic writes, comparisons, hashes."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.exits import TryAgain


@contextlib.contextmanager
def atomic(path: Path, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well, and vanishes when it does not.

    Without `sync` a power cut soon after may leave it empty: for what is compared and written again anyway.
    Raises TryAgain where the disk is full; what stood at `path` before is still there then.
    """
    temporary = _beside(path)
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TryAgain(f"the disk is full: {path} could not be written; free some space and run again.") from error
        raise


def _beside(path: Path) -> Path:
    """A new empty file in the folder of `path`, which is made only where it is missing: plans write thousands."""
    make = functools.partial(tempfile.mkstemp, ".part", f".{path.name}.", path.parent)
    try:
        handle, name = make()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = make()
    os.close(handle)
    return Path(name)


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Write `text` atomically."""
    with atomic(path, sync) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def holds(path: Path, text: str) -> bool:
    """Whether the file is there and holds exactly `text`."""
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Hex digest of a JSON-like value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
