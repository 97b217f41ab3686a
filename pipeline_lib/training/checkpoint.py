"""Checkpoints: atomic, with the previous one kept, in a folder that Snakemake does not know of."""

import errno
import logging
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import atomic

log = logging.getLogger(__name__)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoints:
    """`checkpoint.pt` and `checkpoint.previous.pt` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.newest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write; at every moment at least one whole checkpoint is there. Raises TryAgain where the disk is full."""
        try:
            with atomic(self.newest) as temporary:
                with temporary.open("wb") as stream:
                    torch.save(state, stream)
                if self.newest.exists():
                    self.newest.replace(self.previous)
        except (OSError, RuntimeError) as error:
            if not _disk_is_full(error):
                raise
            raise TryAgain(
                f"the disk is full: the checkpoint {self.newest} could not be written; the one before it is kept, free "
                "some space and run again."
            ) from error

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, or None where there is none. Raises BadData where all are damaged."""
        damaged = []
        for path in (self.newest, self.previous):
            if not path.is_file():
                continue
            try:
                return torch.load(path, map_location=device, weights_only=True)
            except Exception as error:  # torch raises many kinds for a damaged file
                damaged.append(path.name)
                log.warning("%s cannot be read (%s); falling back", path, " ".join(str(error).split())[:200])
        if damaged:
            raise BadData(
                f"{' and '.join(damaged)} in {self.newest.parent} cannot be read; delete the folder to train anew."
            )
        return None

    def delete(self) -> None:
        """Remove both, once the final weights are written."""
        self.newest.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
