"""CelebA 64x64 as in Input Perturbation: the whole 178x218 squashed, which makes faces wider and leaves aliasing.

`cv2.resize(image, (64, 64))` of DDPM-IP's celeba64_npz.py: bilinear between four pixels, all 202,599 images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.data.recipes import Source
from pipeline_lib.data.recipes._celeba import SIZE, CelebA, Split, decode_faces, files_read, size

if TYPE_CHECKING:
    from pipeline_lib.data.decode import Geometry


class Options(CelebA):
    """The paper trains on every image."""

    split: Split = "all"


official, signature = size, files_read
HOW = "all 178x218 squashed to 64x64 as by cv2.resize: bilinear between four pixels, no antialiasing"


def geometry() -> Geometry:
    """What becomes of each image."""
    from pipeline_lib.data.decode import Geometry

    return Geometry(64, resize="squash", size=SIZE)


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,64,64); labels where an attribute is named. Raises BadData and BadConfig."""
    return decode_faces(options, folder, geometry(), HOW)
