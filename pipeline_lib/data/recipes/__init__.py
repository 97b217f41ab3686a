"""Recipes, one file each, found by looking.

A file defines `Options` (a pydantic model) and `prepare(options, folder) -> Source`. It is imported when the Snakefile
is parsed: import heavy libraries inside functions. A recipe only reads and converts; the stage splits and records.

A recipe that reads files defines `signature(options) -> str` too: a cheap hash of what it would read, which becomes
part of the dataset's identity. Failures are BadData with one sentence; what it leaves in the folder is cleared away.
`official(options) -> Official` says how large the dataset is before anything is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Source:
    """What a recipe made in its folder: images.npy, uint8 (N,C,H,W); labels (N,) int64 or None; names of classes.

    `notes` go into the manifest: source, licence note, what was done to the pixels, what was skipped.
    """

    images: Path
    labels: np.ndarray | None
    classes: list[str]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Official:
    """Size of a dataset as published: images, (C,H,W) once prepared, bytes to download and to keep when unpacked.

    known: where the bytes come from: published, counted, or memory (to be taken with a grain of salt). labels: false
    where images are known to have none.
    """

    count: int
    shape: tuple[int, int, int]
    download: int
    unpacked: int
    known: str
    labels: bool = True
