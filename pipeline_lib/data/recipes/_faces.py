"""FFHQ and CelebA-HQ: folders of square, numbered images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.data.recipes import Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, from_images

if TYPE_CHECKING:
    from pipeline_lib.data.decode import Geometry

FFHQ = {
    "source": "Flickr-Faces-HQ (Karras et al., 2019)",
    "licence": "CC BY-NC-SA 4.0 for the dataset; every image has the licence of its author",
}
FFHQ_COUNT = 70_000
FFHQ_PARTS = {"all": slice(None), "train": slice(60_000), "validation": slice(60_000, None)}

Part = Annotated[
    Literal["all", "train", "validation"],
    Field(description="all 70,000; train: the first 60,000; validation: the last 10,000 (the publisher's parts)"),
]
Resize = Annotated[
    Literal["cv2", "lanczos", "bicubic", "bilinear", "box"],
    Field(
        description="how larger images get to 256: cv2: bilinear between four pixels, aliased, as latent diffusion's "
        "loader does; else Pillow's filter, antialiased"
    ),
]
HOW_256 = {
    "cv2": "as by cv2.resize (bilinear between four pixels, no antialiasing)",
    **{name: f"with Pillow's {name} filter (antialiased)" for name in ("lanczos", "bicubic", "bilinear", "box")},
}


def part_count(part: str) -> int:
    """Images of a part of FFHQ."""
    return len(range(FFHQ_COUNT)[FFHQ_PARTS[part]])


def to_256(resize: str) -> Geometry:
    """256x256 from any square of at least that size."""
    from pipeline_lib.data.decode import Geometry

    return Geometry(256, resize="squash") if resize == "cv2" else Geometry(256, filter=resize)


def numbered(
    root: Path,
    options: ImageFiles,
    published: int,
    part: slice,
    geometry: Geometry,
    folder: Path,
    about: dict[str, Any],
) -> Source:
    """Decode the `part` of the images below `root` in the order of their numbers; raises BadData."""
    from pipeline_lib.data.folders import by_stem
    from pipeline_lib.data.images import Files

    names = by_stem(root)
    check_count(len(names), options, published, root)
    return from_images(Files(str(root)), names[part], geometry, folder, options.on_damaged, about)
