"""Thousands of encoded images -> one array file: on all cores, in bounded memory, with everything unusual counted."""

import contextlib
import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline_lib.data.arrays import keep_rows, reserve
from pipeline_lib.data.decode import Geometry, Unusable, decode
from pipeline_lib.data.pool import cores, in_order
from pipeline_lib.exits import BadData
from pipeline_lib.records.progress import Progress

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**22  # of pixels that a worker writes at once
BLOCK_FILES = 256
ENOUGH = 100  # unusable images after which 'refuse' looks no further


class Reader(Protocol):
    """Gives the bytes of one encoded image, in any process."""

    def __call__(self, name: str) -> bytes:
        """The bytes; raises BadData where the storage fails, which says nothing about the image."""

    def where(self, name: str) -> str:
        """What the image is called in a message."""


@dataclass(frozen=True)
class Files:
    """Image files below a folder."""

    root: str

    def __call__(self, name: str) -> bytes:
        try:
            with io.FileIO(self.where(name)) as stream:
                return stream.readall()
        except OSError as error:
            raise BadData(
                f"{self.where(name)} cannot be read ({error.strerror}); make it readable and run again."
            ) from None

    def where(self, name: str) -> str:
        return f"{self.root}/{name}"


@dataclass
class Decoded:
    """What became of some images: places of those kept, (place, reason) of the unusable, pixel formats of the files.

    hashes: one per kept image, of its pixels.
    """

    kept: list[int] = field(default_factory=list)
    unusable: list[tuple[int, str]] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    hashes: list[bytes] = field(default_factory=list)

    def add(self, other: "Decoded") -> None:
        """Append what became of later images."""
        self.kept += other.kept
        self.unusable += other.unusable
        self.formats += other.formats
        self.hashes += other.hashes


def decode_all(
    read: Reader, names: Sequence[str], geometry: Geometry, target: Path, on_damaged: str = "refuse"
) -> Decoded:
    """Write the pixels of all usable images to `target`, uint8 (N,C,H,W), in the order of `names`.

    Raises BadData where there are unusable ones and `on_damaged` is 'refuse', or none are usable; TryAgain where memory
    runs out; OSError where the disk is full.
    """
    row = (geometry.channels, geometry.resolution, geometry.resolution)
    size = max(1, min(BLOCK_FILES, BLOCK_BYTES // int(np.prod(row))))
    starts = range(0, len(names), size)
    work = partial(_decode_block, read=read, geometry=geometry, target=str(target))
    work = partial(work, offset=reserve(target, (len(names), *row), np.uint8))
    results = in_order(work, ((i, names[i : i + size]) for i in starts), min(cores(), len(starts)))
    done, progress = Decoded(), Progress(log, "decoding", "images", len(names))
    with contextlib.closing(results):
        for block in results:
            done.add(block)
            progress.update(len(done.kept) + len(done.unusable))
            if on_damaged == "refuse" and len(done.unusable) >= ENOUGH:
                break
    if done.unusable and (on_damaged == "refuse" or not done.kept):
        raise BadData(_refusal(read.where(names[done.unusable[0][0]]), done))
    if done.unusable:
        keep_rows(target, np.array(done.kept))
    return done


def hash_rows(images: np.ndarray) -> list[bytes]:
    """A short content hash per image of a C-ordered array."""
    return [short_hash(image.data) for image in images]


def short_hash(pixels: bytes | memoryview) -> bytes:
    """8 bytes of SHA-256: two different images of a million share one with a probability of 3e-8."""
    return hashlib.sha256(pixels).digest()[:8]


def duplicates(hashes: Sequence[bytes]) -> int:
    """How many images have the pixels of an earlier one. They are kept, as publishers did; the log tells of them."""
    count = len(hashes) - len(set(hashes))
    if count:
        log.info("%d of %d images have the same pixels as an earlier one; all are kept", count, len(hashes))
    return count


def _decode_block(
    job: tuple[int, Sequence[str]], read: Reader, geometry: Geometry, target: str, offset: int
) -> Decoded:
    """Decode some images and write each where it belongs; the room of unusable ones holds anything."""
    start, names = job
    side, channels = geometry.resolution, geometry.channels
    row = side * side * channels
    buffer, block = bytearray(len(names) * row), Decoded()
    for place, name in enumerate(names):
        try:
            pixels, mode = decode(read(name), geometry)
        except Unusable as error:
            block.unusable.append((start + place, str(error)))
            continue
        buffer[place * row : (place + 1) * row] = pixels
        block.kept.append(start + place)
        block.formats[mode] += 1
        block.hashes.append(short_hash(pixels))
    pictures = np.frombuffer(buffer, np.uint8).reshape(-1, side, side, channels)
    _write(target, offset + start * row, np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).data.cast("B"))
    return block


def _write(target: str, offset: int, data: memoryview) -> None:
    handle = os.open(target, os.O_WRONLY)
    try:
        while data:
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(handle)


def _refusal(first: str, done: Decoded) -> str:
    unusable, usable = len(done.unusable), len(done.kept)
    cure = "replace them, or leave them out with 'on_damaged: skip'" if usable else "check 'path' and the recipe"
    reason = done.unusable[0][1]
    return f"{unusable} of the {unusable + usable} images read cannot be used, the first is {first}: {reason}; {cure}."
