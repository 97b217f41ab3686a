"""FFHQ 256x256 as in latent diffusion, from the published images of 1024x1024 or from any folder of smaller ones."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes import _faces as faces
from pipeline_lib.data.recipes._files import ImageFiles

FOLDER = "images1024x1024"


class Options(ImageFiles):
    """`path` holds images1024x1024, or is a folder of square images; those of 256x256 are taken as they are.

    With ffhq-dataset-v2.json beside images1024x1024, every file is compared with its published MD5.
    """

    split: faces.Part = "all"
    resize: faces.Resize = "cv2"


def official(options: Options) -> Official:
    """As published: 89.1 GB of images of 1024x1024."""
    count = faces.part_count(options.split)
    return Official(count, (3, 256, 256), 89_100_000_000, 89_100_000_000, "published", labels=False)


def signature(options: Options) -> str:
    """Of all images and the publisher's list."""
    return faces.ffhq_signature(options, FOLDER)


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,256,256) in the order of their numbers; raises BadData."""
    how = f"256x256; larger images resized {faces.HOW_256[options.resize]}"
    return faces.prepare_ffhq(options, FOLDER, options.split, faces.to_256(options.resize), folder, how)
