"""ImageNet 32x32; `release` says which of three datasets of that name is meant."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._downsampled import Options, files_read, prepare_release, size

__all__ = ["Options", "official", "prepare", "signature"]
SIDE = 32


def official(options: Options) -> Official:
    """As published."""
    return size(options, SIDE)


def signature(options: Options) -> str:
    """Of the batches or images."""
    return files_read(options, SIDE)


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,32,32); labels where the release has them. Raises BadData."""
    return prepare_release(options, folder, SIDE)
