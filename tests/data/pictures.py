"""Small image files of every kind that datasets hold."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int = 12, height: int = 12, seed: int = 0) -> Image.Image:
    """An RGB image with smooth colours, so that JPEG keeps them apart."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def put(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    """Save an image; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture() if image is None else image).save(path, **options)
    return path


def put_truncated(path: Path) -> Path:
    """A JPEG whose second half is missing."""
    data = put(path, picture(64, 64), quality=95).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def put_rgb16(path: Path, value: int = 40_000, side: int = 12) -> Path:
    """A PNG of 16 bits a channel, which Pillow itself cannot write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (b"\0" + np.full((side, 3), value, ">u2").tobytes()) * side
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path
