"""CelebA 64x64 as in Score SDE and FP-Diffusion: the central square of 140, resized.

`central_crop(140)` and `resize_small(64)` of score_sde: bilinear, antialiased. There in float32 in TensorFlow, here by
Pillow in 8 bits: the same triangle filter, rounded to whole levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.data.recipes import Source
from pipeline_lib.data.recipes._celeba import SIZE, decode_faces, files_read, size
from pipeline_lib.data.recipes._celeba import CelebA as Options

if TYPE_CHECKING:
    from pipeline_lib.data.decode import Geometry

official, signature = size, files_read
HOW = "the central 140x140, resized to 64x64 with Pillow's bilinear filter (antialiased)"


def geometry() -> Geometry:
    """What becomes of each image."""
    from pipeline_lib.data.decode import Geometry

    return Geometry(64, filter="bilinear", size=SIZE, crop=(19, 39, 19 + 140, 39 + 140))


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,64,64); labels where an attribute is named. Raises BadData and BadConfig."""
    return decode_faces(options, folder, geometry(), HOW)
