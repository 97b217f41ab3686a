"""ImageNet 128x128 as in ADM and ADM-ES: `center_crop_arr` of guided-diffusion on the ILSVRC 2012 images.

Halved by means of 2x2 while the short side is at least 256, resized to 128 with Pillow's bicubic filter, then the
centre cropped. Labels are the ranks of the WordNet ids, as there.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import ImageFiles
from pipeline_lib.data.recipes._ilsvrc import prepare_tree, tree_signature, tree_size


class Options(ImageFiles):
    """Which part of ILSVRC 2012; its images lie in class folders, `<path>/train/n01440764/n01440764_10026.JPEG`."""

    split: Literal["train", "val"] = Field("train", description="sub-folder of class folders")


def official(options: Options) -> Official:
    """As published."""
    return tree_size(options.split, 128)


def signature(options: Options) -> str:
    """Of all images."""
    return tree_signature(options, options.split)


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,128,128) in the order of class and name, and labels; raises BadData."""
    return prepare_tree(options, options.split, folder, 128)
