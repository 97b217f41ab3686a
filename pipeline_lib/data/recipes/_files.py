"""What the recipes of image files share: their options, the count, and the way from files to a Source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Source
from pipeline_lib.exits import BadData

if TYPE_CHECKING:
    import numpy as np

    from pipeline_lib.data.decode import Geometry
    from pipeline_lib.data.images import Reader

Damaged = Annotated[
    Literal["refuse", "skip"],
    Field(
        description="images that are damaged, too small or of an unknown pixel format: end, or leave out and list them"
    ),
]


def _count(value: Any) -> Any:
    if value not in ("official", None) and not (isinstance(value, int) and value > 0):
        raise ValueError("give 'official', a number of images, or null for any number")
    return value


class Counted(Model):
    """Options of a dataset with a published number of images."""

    path: str = Field(min_length=1, description="folder of the dataset; a relative one starts at the working directory")
    expected: Annotated[Literal["official"] | int | None, BeforeValidator(_count)] = Field(
        "official", description="images that must be there: the published number, another one, or null for any"
    )


class ImageFiles(Counted):
    """Options of a dataset of image files."""

    on_damaged: Damaged = "refuse"


def folder_of(path: str, *below: str) -> Path:
    """The first of the sub-folders `below` that `path` has, else `path` itself; raises BadData where it is missing."""
    from pipeline_lib.data.folders import existing

    root = existing(Path(path).expanduser(), "correct 'path', or put the dataset there")
    return next((root / name for name in below if (root / name).is_dir()), root)


def check_count(found: int, options: Counted, published: int, where: Path | str) -> None:
    """Raises BadData where there are not as many images as the options expect."""
    expected = published if options.expected == "official" else options.expected
    if expected is not None and found != expected:
        raise BadData(
            f"{where} holds {found:,} images and {expected:,} are expected; complete it, or say with 'expected' how "
            "many there are (null: any number)."
        )


def from_images(
    read: Reader,
    names: Sequence[str],
    geometry: Geometry,
    folder: Path,
    on_damaged: str,
    about: dict[str, Any],
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> Source:
    """Decode all images into `folder`; labels (N,) are those of all names, before unusable ones are left out.

    Raises BadData, TryAgain and OSError as `decode_all` does.
    """
    from pipeline_lib.data.decode import PIXELS, decoder
    from pipeline_lib.data.images import decode_all, duplicates

    done = decode_all(read, names, geometry, folder / "images.npy", on_damaged)
    notes = {
        **about,
        "pixels": PIXELS,
        "orientation": f"EXIF orientation is {'applied' if geometry.upright else 'ignored, as its papers do'}",
        "decoder": decoder(),
        "pixel_formats": dict(sorted(done.formats.items())),
        "skipped": [{"file": names[place], "reason": reason} for place, reason in done.unusable],
        "duplicates": duplicates(done.hashes),
    }
    kept = labels[done.kept] if labels is not None else None
    return Source(folder / "images.npy", kept, list(classes), notes)


def class_labels(names: Sequence[str]) -> tuple[np.ndarray | None, list[str]]:
    """Labels int64 (N,) and class names by the first folder of each name; None where there are no folders."""
    import numpy as np

    from pipeline_lib.data.folders import class_of

    found = [class_of(name) for name in names]
    classes = sorted(set(found) - {""})
    number = {c: i for i, c in enumerate(classes)}
    return (np.array([number[c] for c in found], np.int64) if classes else None), classes
