"""FFHQ and CelebA-HQ: folders of square, numbered images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.data.recipes import Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, folder_of, from_images

if TYPE_CHECKING:
    from pipeline_lib.data.decode import Geometry
    from pipeline_lib.data.images import Reader

FFHQ = {
    "source": "Flickr-Faces-HQ (Karras et al., 2019)",
    "licence": "CC BY-NC-SA 4.0 for the dataset; every image has the licence of its author",
}
LISTING = "ffhq-dataset-v2.json"  # the publisher's list, which lies beside the folders of images
LISTING_MD5 = "425ae20f06a4da1d4dc0f46d40ba5fd6"  # NVlabs/ffhq-dataset, download_ffhq.py
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


@dataclass(frozen=True)
class Listed:
    """Reads FFHQ's files below `root`, each compared with its MD5 in the list of the publisher."""

    root: str
    listing: str

    def __call__(self, name: str) -> bytes:
        from pipeline_lib.data.decode import Unusable
        from pipeline_lib.data.images import Files

        data = Files(self.root)(name)
        if hashlib.md5(data).hexdigest() != listed(self.listing, Path(self.root).name).get(Path(name).stem):
            raise Unusable(f"its MD5 is not the one in {LISTING}, so it is not the published file")
        return data

    def where(self, name: str) -> str:
        return f"{self.root}/{name}"


@cache
def listed(listing: str, kind: str) -> dict[str, str]:
    """MD5 by number (00000 .. 69999) of the files of a kind: thumbnails128x128 or images1024x1024.

    The list has 268 MB; it is read once, before the decoding processes are forked. Raises BadData where it was cut.
    """
    from pipeline_lib.data.download import check

    found: dict[str, str] = {}

    def keep(entry: dict[str, Any]) -> None:  # all else is forgotten while it is read
        path = Path(str(entry.get("file_path", "")))
        if path.parts[:1] == (kind,):
            found[path.stem] = entry["file_md5"]

    json.loads(check(Path(listing), LISTING_MD5).read_bytes(), object_hook=keep)
    return found


def ffhq_signature(options: ImageFiles, below: str) -> str:
    """Of all images and the publisher's list."""
    from pipeline_lib.data.folders import signature_below, signature_of

    root = folder_of(options.path, below)
    return signature_below(root) + signature_of([root.parent / LISTING])


def prepare_ffhq(options: ImageFiles, below: str, part: str, geometry: Geometry, folder: Path, size: str) -> Source:
    """Decode the `part` of FFHQ in the published folder `below`, or in `path`; raises BadData.

    Where the publisher's list lies beside that folder every file must have its MD5.
    """
    from pipeline_lib.data.images import Files

    root = folder_of(options.path, below)
    listing = root.parent / LISTING
    compared = root.name == below and listing.is_file()
    if compared:
        listed(str(listing), below)
    read: Reader = Listed(str(root), str(listing)) if compared else Files(str(root))
    md5 = f"every file compared with {LISTING}" if compared else f"not compared: there is no {below} beside a {LISTING}"
    about = {**FFHQ, "split": part, "size": size, "checksums": md5}
    try:
        return numbered(read, root, options, FFHQ_COUNT, FFHQ_PARTS[part], geometry, folder, about)
    finally:
        listed.cache_clear()


def numbered(
    read: Reader,
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

    names = by_stem(root)
    check_count(len(names), options, published, root)
    return from_images(read, names[part], geometry, folder, options.on_damaged, about)
