"""FFHQ 128x128 as in ADM-ES and Input Perturbation: the published thumbnails, not resized."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._faces import Part, ffhq_signature, part_count, prepare_ffhq
from pipeline_lib.data.recipes._files import ImageFiles

FOLDER = "thumbnails128x128"


class Options(ImageFiles):
    """`path` holds thumbnails128x128 (00000/00000.png .. 69000/69999.png, or all in one folder), or is that folder.

    With ffhq-dataset-v2.json beside it, every file is compared with its published MD5.
    """

    split: Part = "all"


def official(options: Options) -> Official:
    """As published: 1.95 GB of thumbnails."""
    count = part_count(options.split)
    return Official(count, (3, 128, 128), 1_950_000_000, 1_950_000_000, "published", labels=False)


def signature(options: Options) -> str:
    """Of all images and the publisher's list."""
    return ffhq_signature(options, FOLDER)


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,128,128) in the order of their numbers; raises BadData."""
    from pipeline_lib.data.decode import Geometry

    size = "the published thumbnails of 128x128"
    return prepare_ffhq(options, FOLDER, options.split, Geometry(128, resize="none"), folder, size)
