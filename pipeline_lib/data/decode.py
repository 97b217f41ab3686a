"""From image files to uint8 pixels: what is converted, what is refused, how images are resized."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pipeline_lib.exits import BadData

CONVERTED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

PIXELS = (
    "EXIF orientation is applied; the first frame of an animation counts; palettes, YCbCr and CMYK become RGB without "
    "colour profiles; transparency is laid over white; grey becomes RGB by repetition, colour becomes grey by "
    "ITU-R 601-2 luma; more than 8 bits a channel are refused"
)


class Unusable(Exception):
    """An image that cannot become pixels of the dataset; its text says why."""


@dataclass(frozen=True)
class Geometry:
    """The images that are wanted: square side in pixels, channels (1 or 3), how they get there, Pillow's filter."""

    resolution: int
    channels: int
    resize: str
    filter: str


@dataclass
class Decoded:
    """A block of images uint8 (n,C,H,W); which of its files they come from; (place, reason) of the unusable ones."""

    images: np.ndarray
    places: list[int] = field(default_factory=list)
    unusable: list[tuple[int, str]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)


def decode_block(files: list[str], geometry: Geometry) -> Decoded:
    """Decode some files; raises BadData where the file system fails, which says nothing about the image."""
    size = (len(files), geometry.channels, geometry.resolution, geometry.resolution)
    block = Decoded(np.empty(size, np.uint8))
    for place, file in enumerate(files):
        try:
            pixels, mode = decode(file, geometry)
        except Unusable as error:
            block.unusable.append((place, str(error)))
            continue
        block.images[len(block.places)] = pixels
        block.places.append(place)
        block.modes[mode] += 1
    block.images = block.images[: len(block.places)]
    return block


def decode(file: Path | str, geometry: Geometry) -> tuple[np.ndarray, str]:
    """Pixels uint8 (C,H,W) of an image file, and its pixel format in Pillow's words.

    The short side is resized to the resolution (antialiased; the long side is rounded to whole pixels), then the centre
    is cropped. Nothing is enlarged. Raises Unusable, or BadData where the file system fails.
    """
    image = _load(file)
    mode = image.mode
    image = _fit(_convert(image, geometry.channels), geometry)
    pixels = np.asarray(image)
    return pixels[None] if geometry.channels == 1 else pixels.transpose(2, 0, 1), mode


def _load(file: Path | str) -> Image.Image:
    try:
        with Image.open(file) as image:
            _refuse_deep(image)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        return image
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unusable("it is empty, damaged, or no image") from None
    except OSError as error:
        if error.errno is not None:
            raise BadData(f"{file} cannot be read ({error.strerror}); make it readable and run again.") from None
        raise Unusable(f"it is damaged ({error})") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError, struct.error and more
        raise Unusable(f"it is damaged ({type(error).__name__}: {error})") from None


def _refuse_deep(image: ImageFile.ImageFile) -> None:
    """Refuse what has more than 8 bits a channel: how to scale it is for its owner to say.

    Pillow would clip 16-bit grey at 255, and drop the low bytes of 16-bit RGB, without a word.
    """
    deep = any(re.search(r";16[BLN]", str(tile.args)) for tile in image.tile)
    if deep or image.mode not in CONVERTED:
        what = "more than 8 bits a channel" if deep else f"the pixel format {image.mode}"
        raise Unusable(f"it has {what}, and only 8-bit grey, palette, RGB, YCbCr and CMYK are read")


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    wanted = "RGB" if channels == 3 else "L"
    return image if image.mode == wanted else image.convert(wanted)


def _fit(image: Image.Image, geometry: Geometry) -> Image.Image:
    side, (width, height) = geometry.resolution, image.size
    if image.size == (side, side):
        return image
    if geometry.resize == "none":
        raise Unusable(f"it is {width}x{height} pixels and must be {side}x{side}, since 'resize' is 'none'")
    short = min(width, height)
    if short < side:
        raise Unusable(f"it is {width}x{height} pixels and its short side must have at least {side}")
    if short > side:
        width, height = round(width * side / short), round(height * side / short)
        image = image.resize((width, height), Image.Resampling[geometry.filter.upper()])
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))
