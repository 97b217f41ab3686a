"""A folder of image files, the way most datasets are handed on.

Sub-folders become the classes, in the order of their names, with everything below them; images that lie directly in the
folder have no labels. Hidden files, and files whose name does not end like an image's, are passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Source
from pipeline_lib.exits import BadData, TryAgain

if TYPE_CHECKING:
    from pipeline_lib.data.decode import Decoded

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {"train", "training", "test", "val", "valid", "validation"}
BLOCK_BYTES = 2**22  # of pixels that a worker hands back at once
BLOCK_FILES = 256
ENOUGH = 100  # unusable images after which 'refuse' looks no further
LOG_SECONDS = 5


class Options(Model):
    """Where the images lie and what is made of them."""

    path: str = Field(min_length=1, description="folder of the images; a relative one starts at the working directory")
    split: str | None = Field(
        None, min_length=1, description="sub-folder to read, such as train; null: the folder itself"
    )
    resolution: int = Field(ge=1, le=4096, description="side of the square images, in pixels")
    channels: Literal[1, 3] = Field(3, description="1: grey, 3: RGB")
    resize: Literal["short-side", "none"] = Field(
        "short-side",
        description="short-side: resized to the resolution, then the centre is cropped; none: they must have that size",
    )
    filter: Literal["bicubic", "lanczos", "bilinear", "box"] = Field(
        "bicubic", description="Pillow's resampling filter, antialiased"
    )
    on_damaged: Literal["refuse", "skip"] = Field(
        "refuse",
        description="images that are damaged, too small or of an unknown pixel format: end, or leave out and list them",
    )


def signature(options: Options) -> str:
    """A hash of names, sizes and modification times of all images: what a dataset's identity depends on."""
    listing = hashlib.sha256()
    for name, entry in sorted(_walk(_root(options)), key=lambda found: found[0]):
        status = entry.stat()
        listing.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return listing.hexdigest()


def prepare(options: Options, folder: Path) -> Source:
    """Decode all images in the order of class and name, in parallel and with bounded memory.

    Raises BadData where there are none, or unusable ones and `on_damaged` is 'refuse'; TryAgain where memory runs out.
    """
    import numpy as np

    from pipeline_lib.data.decode import PIXELS

    root = _root(options)
    names = list_images(root)
    kept, skipped, modes = _decode_all(root, names, options, folder / "images.npy")
    classes = sorted({_class(n) for n in names} - {""})
    number = {c: i for i, c in enumerate(classes)}
    labels = np.array([number[_class(names[i])] for i in kept], np.int64) if classes else None
    notes = {
        "source": str(root),
        "licence": "that of the images; ask their source",
        "pixels": PIXELS,
        "size": _size_note(options),
        "pixel_formats": dict(sorted(modes.items())),
        "skipped": [{"file": names[i], "reason": reason} for i, reason in skipped],
    }
    return Source(folder / "images.npy", labels, classes, notes)


def list_images(root: Path) -> list[str]:
    """Paths of all images relative to `root`, ordered by class and name; raises BadData for an unclear layout."""
    names = sorted((name for name, _ in _walk(root)), key=lambda name: (_class(name), name))
    if not names:
        raise BadData(f"there are no images in {root}; it must hold files that end in {', '.join(SUFFIXES)}.")
    classes = {_class(name) for name in names}
    if len(classes) > 1 and "" in classes:
        raise BadData(
            f"{root} holds images directly ({names[0]}) and in folders ({names[-1]}); put all of them into class "
            "folders, or none."
        )
    if classes <= SPLITS:
        raise BadData(
            f"the folders of {root} are splits and no classes ({', '.join(sorted(classes))}); name one with 'split'."
        )
    return names


def _root(options: Options) -> Path:
    root = Path(options.path).expanduser() / (options.split or "")
    if not root.is_dir():
        raise BadData(f"the image folder {root} does not exist; correct 'path' and 'split', or put the images there.")
    return root


def _walk(folder: Path | str, above: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(name relative to the root, entry) of every image, in no order."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".")]
    except OSError as error:
        raise BadData(f"the folder {folder} cannot be read ({error.strerror}).") from None
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, f"{above}{entry.name}/")
        elif entry.name.lower().endswith(SUFFIXES):
            yield above + entry.name, entry


def _class(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else ""


def _size_note(options: Options) -> str:
    side = options.resolution
    if options.resize == "none":
        return f"{side}x{side} in the files"
    return f"short side resized to {side} with Pillow's {options.filter} filter (antialiased), then the centre cropped"


def _decode_all(
    root: Path, names: list[str], options: Options, target: Path
) -> tuple[list[int], list[tuple[int, str]], Counter[str]]:
    """Write the pixels to `target`; places of the images kept, (place, reason) of those skipped, pixel formats."""
    import numpy as np

    from pipeline_lib.data.arrays import appending
    from pipeline_lib.data.decode import Geometry, decode_block

    geometry = Geometry(options.resolution, options.channels, options.resize, options.filter)
    row = (options.channels, options.resolution, options.resolution)
    size = max(1, min(BLOCK_FILES, BLOCK_BYTES // int(np.prod(row))))
    starts = range(0, len(names), size)
    blocks = ([f"{root}/{name}" for name in names[i : i + size]] for i in starts)
    results = _in_order(partial(decode_block, geometry=geometry), blocks, _workers(len(starts)))
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    modes: Counter[str] = Counter()
    progress = _Progress(len(names))
    with appending(target, row, np.uint8) as append, contextlib.closing(results):
        for start, block in zip(starts, results, strict=True):
            append(block.images)
            kept += [start + p for p in block.places]
            skipped += [(start + p, reason) for p, reason in block.unusable]
            modes += block.modes
            progress.show(len(kept) + len(skipped))
            if options.on_damaged == "refuse" and len(skipped) >= ENOUGH:
                break
    if skipped and (options.on_damaged == "refuse" or not kept):
        raise BadData(_refusal(root / names[skipped[0][0]], skipped[0][1], len(skipped), len(kept)))
    return kept, skipped, modes


def _refusal(first: Path, reason: str, unusable: int, usable: int) -> str:
    cure = "replace them, or leave them out with 'on_damaged: skip'" if usable else "check 'path' and 'resolution'"
    return f"{unusable} of the {unusable + usable} images read cannot be used, the first is {first}: {reason}; {cure}."


def _in_order(
    work: Callable[[list[str]], Decoded], blocks: Iterable[list[str]], workers: int
) -> Generator[Decoded, None, None]:
    """Results of all blocks in their order, a few blocks ahead of the reader.

    Processes, not threads: decoding releases the interpreter lock, but opening small files does not. Measured on two
    shared cores with 32x32 JPEGs, two threads were a quarter to two fifths slower than a plain loop, two processes
    between equally fast and 1.6 times as fast; with 600x400 JPEGs threads and processes were equal.
    """
    if workers == 1:
        yield from map(work, blocks)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
            ahead: deque[Any] = deque()
            for block in blocks:
                ahead.append(pool.submit(work, block))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
    except BrokenProcessPool:
        raise TryAgain("a decoding process was killed, most likely for memory; raise runtime.memory_mb.") from None


def _workers(blocks: int) -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, blocks)


def _follow_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when the parent was killed (a pool's workers would stay)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _Progress:
    """A line in the log every few seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.start = total, time.monotonic()
        self.last = self.start

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self.last < LOG_SECONDS:
            return
        self.last = now
        rate = done / (now - self.start)
        left = (self.total - done) / rate
        log.info("%s of %s images, %s/s, %.0f s left", f"{done:,}", f"{self.total:,}", f"{rate:,.0f}", left)
