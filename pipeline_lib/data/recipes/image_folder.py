"""A folder of image files, the way most datasets are handed on.

Sub-folders become the classes, in the order of their names, with everything below them; images that lie directly in the
folder have no labels. Hidden files, and files whose name does not end like an image's, are passed over.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import Damaged, class_labels, from_images
from pipeline_lib.exits import BadData

SPLITS = {"train", "training", "test", "val", "valid", "validation"}


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
    on_damaged: Damaged = "refuse"


def official(options: Options) -> Official:
    """Counted in the folder."""
    from pipeline_lib.data.folders import names_below

    root = _root(options)
    names = names_below(root)
    shape = (options.channels, options.resolution, options.resolution)
    return Official(len(names), shape, 0, sum((root / name).stat().st_size for name in names), "counted")


def signature(options: Options) -> str:
    """A hash of names, sizes and modification times of all images: what a dataset's identity depends on."""
    from pipeline_lib.data.folders import signature_below

    return signature_below(_root(options))


def prepare(options: Options, folder: Path) -> Source:
    """Decode all images in the order of class and name.

    Raises BadData where there are none, or unusable ones and `on_damaged` is 'refuse'; TryAgain where memory runs out.
    """
    from pipeline_lib.data.decode import Geometry
    from pipeline_lib.data.images import Files

    root = _root(options)
    names = list_images(root)
    labels, classes = class_labels(names)
    geometry = Geometry(options.resolution, options.channels, options.resize, options.filter, upright=True)
    about = {
        "source": str(root),
        "split": options.split,
        "licence": "that of the images; ask their source",
        "size": _size_note(options),
    }
    return from_images(Files(str(root)), names, geometry, folder, options.on_damaged, about, labels, classes)


def list_images(root: Path) -> list[str]:
    """Paths of all images relative to `root`, ordered by class and name; raises BadData for an unclear layout."""
    from pipeline_lib.data.folders import by_class, class_of

    names = by_class(root)
    classes = {class_of(name) for name in names}
    if classes <= SPLITS:
        raise BadData(
            f"the folders of {root} are splits and no classes ({', '.join(sorted(classes))}); name one with 'split'."
        )
    return names


def _root(options: Options) -> Path:
    from pipeline_lib.data.folders import existing

    root = Path(options.path).expanduser()
    if options.split:
        existing(root, "correct 'path', or put the images there")
    return existing(root / (options.split or ""), "correct 'path' and 'split', or put the images there")


def _size_note(options: Options) -> str:
    side = options.resolution
    if options.resize == "none":
        return f"{side}x{side} in the files"
    return f"short side resized to {side} with Pillow's {options.filter} filter (antialiased), then the centre cropped"
