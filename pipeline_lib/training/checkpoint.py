"""Checkpoints: atomic, with the previous one kept, in a folder that Snakemake does not know of."""

import errno
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline_lib import faults
from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import atomic

log = logging.getLogger(__name__)
DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, RuntimeError)  # what wrong bytes raise


class Checkpoints:
    """`checkpoint.pt` and `checkpoint.previous.pt` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.newest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"

    def save(self, state: dict[str, Any], confirm: Callable[[], None] = lambda: None) -> None:
        """Write; at every moment at least one whole checkpoint is there. Raises TryAgain where the disk is full.

        `confirm` is called when all is on the disk and before anything takes the place of the newest: it raises where
        the folder is another trainer's by then.
        """
        try:
            with atomic(self.newest) as temporary:
                with temporary.open("wb") as stream:
                    torch.save(state, stream)
                    stream.flush()
                    os.fsync(stream.fileno())  # which may take long, so before the question
                confirm()
                if self.newest.exists():
                    self.newest.replace(self.previous)
        except (OSError, RuntimeError) as error:
            if not faults.disk_is_full(error):
                raise
            raise TryAgain(
                f"the disk is full: the checkpoint {self.newest} could not be written; the one before it is kept, free "
                "some space and run again."
            ) from error

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None where there is none.

        Raises BadData where all are damaged. What is no damage (a file system, memory or GPU that fails) is never taken
        for it: TryAgain, or torch's own error.
        """
        damaged = []
        for path in (self.newest, self.previous):
            try:
                with path.open("rb") as stream:
                    return torch.load(stream, map_location=device, weights_only=True)
            except FileNotFoundError:
                continue
            except Exception as error:
                if not _is_damage(error):
                    if isinstance(error, OSError):
                        raise TryAgain(f"the checkpoint {path} could not be read now ({error}); it is kept.") from error
                    raise
                damaged.append(path.name)
                log.warning("%s cannot be read (%s); falling back", path, " ".join(str(error).split())[:200])
        if damaged:
            raise BadData(
                f"{' and '.join(damaged)} in {self.newest.parent} cannot be read; move the folder aside to train anew."
            )
        return None

    def delete(self) -> None:
        """Remove both, once the final weights are written."""
        self.newest.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _is_damage(error: Exception) -> bool:
    """Whether bytes that were read make no checkpoint; a file that is cut short sends the reader before its start."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL
    fault = faults.no_gpu_memory(error) or faults.from_gpu(error) or faults.of_machine(error)
    return isinstance(error, DAMAGE) and not fault
