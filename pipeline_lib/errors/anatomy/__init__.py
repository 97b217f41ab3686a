"""The anatomy of exposure bias: measures of how the error comes about, one file each, found by looking.

A file defines `Options` (a pydantic model) and `build(options)`, which returns a `Measure`; its docstring says what it
measures, with its source and its readings. The errors job shows a measure every measured place of the sampling pass
(`at`), and every measured place of chains that start from a true x_t (`after`). What it is shown calls the network
only when it is asked for a prediction, and all measures share the answer. These calls are at x_t as it is, by the
network as trained: without corrections of the sampler and without clipping, and they are no part of the NFE. A file is
imported when the Snakefile is parsed: import torch inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_lib.errors.anatomy._views import After, At
    from pipeline_lib.errors.exposure import Measured


@dataclass(frozen=True)
class Reading:
    """One value of a measure: which, the estimate, and from how many samples."""

    name: str
    found: Measured
    n: int


class Measure:
    """What a measure says; it leaves out what it has nothing to say to."""

    after_leak = False  # whether it asks for chains that start from a true x_t
    perturbed = False  # whether these also start from a perturbed x_t

    def at(self, here: At) -> Iterator[Reading]:
        """Readings at one measured place of the sampling pass."""
        yield from ()

    def after(self, here: After) -> Iterator[Reading]:
        """Readings at one measured place of chains that start from a true x_t."""
        yield from ()

    def whole(self) -> Iterator[Reading]:
        """Readings of the whole sampling pass, when all places have been shown."""
        yield from ()
