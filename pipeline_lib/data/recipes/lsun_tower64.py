"""LSUN tower 64x64 as in ADM and Input Perturbation, from the published LMDB of encoded images.

As guided-diffusion's lsun_bedroom.py: short side (256 as published) to 64 with the box filter, centre cropped. There
the result is kept as PNG files, so no second compression comes in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, folder_of, from_images
from pipeline_lib.exits import BadData

COUNTS = {"train": 708_264, "val": 300}
KEYS = "latin1"  # SHA-1 sums as published; any other bytes come back as they were too
BYTES = {"train": 11_600_000_000, "val": 5_000_000}


class Options(ImageFiles):
    """Which part of LSUN tower; `path` holds tower_train_lmdb or tower_val_lmdb, or is that folder."""

    split: Literal["train", "val"] = Field("train", description="the database to read")


@dataclass(frozen=True)
class Database:
    """Reads encoded images from an LMDB folder."""

    folder: str

    def __call__(self, name: str) -> bytes:
        with _reading(self.folder), _environment(self.folder).begin() as transaction:
            return transaction.get(name.encode(KEYS))

    def where(self, name: str) -> str:
        return f"{self.folder} (key {name})"


def official(options: Options) -> Official:
    """As published."""
    size = BYTES[options.split]
    return Official(COUNTS[options.split], (3, 64, 64), size, size, "memory", labels=False)


def signature(options: Options) -> str:
    """Of the database file."""
    from pipeline_lib.data.folders import signature_of

    return signature_of([_folder(options) / "data.mdb"])


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,64,64) in the order of the keys; raises BadData."""
    from pipeline_lib.data.decode import Geometry

    database = Database(str(_folder(options)))
    names = _keys(database.folder)
    check_count(len(names), options, COUNTS[options.split], database.folder)
    about = {
        "source": "LSUN (Yu et al., 2015), category tower",
        "split": options.split,
        "licence": "none stated; for research (the images belong to their owners)",
        "size": "short side to 64 with Pillow's box filter (means), centre cropped",
    }
    try:
        return from_images(database, names, Geometry(64, filter="box"), folder, options.on_damaged, about)
    finally:
        _environment.cache_clear()


def _folder(options: Options) -> Path:
    folder = folder_of(options.path, f"tower_{options.split}_lmdb")
    if not (folder / "data.mdb").is_file():
        raise BadData(f"{folder} holds no data.mdb; 'path' must be tower_{options.split}_lmdb or the folder around it.")
    return folder


def _keys(folder: str) -> list[str]:
    """All keys in their order; raises BadData for a database that was cut.

    It is mapped into memory, and reading behind the end of the file would kill the process.
    """
    with _reading(folder), _open(folder) as environment:
        size = environment.stat()["psize"] * (environment.info()["last_pgno"] + 1)
        found = (Path(folder) / "data.mdb").stat().st_size
        if found < size:
            raise BadData(f"{folder}/data.mdb is cut short ({found:,} of {size:,} bytes); get it again.")
        with environment.begin() as transaction:
            return [key.decode(KEYS) for key in transaction.cursor().iternext(values=False)]


def _open(folder: str) -> Any:
    import lmdb

    return lmdb.open(folder, readonly=True, lock=False, readahead=False)


@cache
def _environment(folder: str) -> Any:
    """The open database of a decoding process, which must not use its parent's."""
    return _open(folder)


@contextlib.contextmanager
def _reading(folder: str) -> Iterator[None]:
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise BadData(f"{folder} cannot be read as a database ({error}); get it again.") from None
