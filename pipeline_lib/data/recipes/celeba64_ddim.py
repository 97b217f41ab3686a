"""CelebA 64x64 as in DDIM, Analytic-DPM and TS-DPM: a square of 128 around the face, resized.

`Crop` and `Resize(64)` of ermongroup/ddim: the centre is x = 89, y = 121, the filter Pillow's bilinear, antialiased.
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
HOW = "the 128x128 around (89, 121), resized to 64x64 with Pillow's bilinear filter (antialiased)"


def geometry() -> Geometry:
    """What becomes of each image."""
    from pipeline_lib.data.decode import Geometry

    return Geometry(64, filter="bilinear", size=SIZE, crop=(89 - 64, 121 - 64, 89 + 64, 121 + 64))


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,64,64); labels where an attribute is named. Raises BadData and BadConfig."""
    return decode_faces(options, folder, geometry(), HOW)
