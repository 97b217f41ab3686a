"""Image grids as PNG files."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.records.files import atomic

GAP = 2  # white pixels between images
VISIBLE = 64  # pixels: smaller images are enlarged to about this side


def save_grid(images: np.ndarray, path: Path, columns: int | None = None, scale: int | None = None) -> None:
    """Write images uint8 (N,C,H,W), C 1 or 3, row by row into a PNG; the file is replaced atomically.

    columns: images in a row, by default as many as make the grid square. scale: whole factor of enlargement by nearest
    neighbour, by default such that an image is about 64 pixels wide. The grid measures columns * W * scale plus gaps of
    2 pixels by rows * H * scale plus gaps. Raises ValueError for other arrays, TryAgain where the disk is full.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"a grid needs uint8 images (N, 1 or 3, H, W), not {images.dtype} {images.shape}")
    scale = scale or max(1, VISIBLE // max(images.shape[2:]))
    columns = columns or math.ceil(math.sqrt(len(images)))
    content = png(images.repeat(scale, axis=2).repeat(scale, axis=3), columns)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def png(images: np.ndarray, columns: int) -> bytes:
    """Images uint8 (N,C,H,W), C 1 or 3, row by row as the content of a PNG file, with white gaps of 2 pixels."""
    data = io.BytesIO()  # Pillow loses the number of a file error, so it writes to memory
    _picture(images, columns).save(data, "PNG")
    return data.getvalue()


def _picture(images: np.ndarray, columns: int) -> Image.Image:
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels)
    canvas = np.full(shape, 255, np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
