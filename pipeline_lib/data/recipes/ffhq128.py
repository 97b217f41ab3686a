"""FFHQ 128x128 as in ADM-ES and Input Perturbation: the published thumbnails, not resized."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._faces import FFHQ, FFHQ_COUNT, FFHQ_PARTS, Part, numbered, part_count
from pipeline_lib.data.recipes._files import ImageFiles, folder_of

FOLDER = "thumbnails128x128"


class Options(ImageFiles):
    """`path` holds thumbnails128x128 (00000/00000.png .. 69000/69999.png, or all in one folder), or is that folder."""

    split: Part = "all"


def official(options: Options) -> Official:
    """As published: 1.95 GB of thumbnails."""
    return Official(part_count(options.split), (3, 128, 128), 1_950_000_000, 1_950_000_000, "published")


def signature(options: Options) -> str:
    """Of all images."""
    from pipeline_lib.data.folders import signature_below

    return signature_below(folder_of(options.path, FOLDER))


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,128,128) in the order of their numbers; raises BadData."""
    from pipeline_lib.data.decode import Geometry

    about = {**FFHQ, "split": options.split, "size": "the published thumbnails of 128x128"}
    geometry, root = Geometry(128, resize="none"), folder_of(options.path, FOLDER)
    return numbered(root, options, FFHQ_COUNT, FFHQ_PARTS[options.split], geometry, folder, about)
