"""From encoded images to uint8 pixels: what is converted, what is refused, how images are cropped and resized."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError, features
from PIL import __version__ as pillow

CONVERTED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
TURNED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where Pillow looks for an orientation

# Photographs may carry a colour profile or text above Pillow's 1 MB, and are whole (NVlabs/ffhq-dataset meets some).
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26

PIXELS = (
    "the first frame of an animation counts; palettes, YCbCr and CMYK become RGB without colour profiles; transparency "
    "is laid over white; grey becomes RGB by repetition, colour becomes grey by ITU-R 601-2 luma; more than 8 bits a "
    "channel are refused"
)


class Unusable(Exception):
    """An image that cannot become pixels of the dataset; its text says why."""


@dataclass(frozen=True)
class Geometry:
    """The images that are wanted and how they get there, in this order: size check, crop, resize.

    resize is a key of RESIZES; filter one of Pillow's, antialiased. size: (width, height) that every image must have.
    crop: the box (left, top, right, bottom) that is cut out. upright: EXIF orientation is applied; most published
    pipelines ignore it.
    """

    resolution: int
    channels: int = 3
    resize: str = "short-side"
    filter: str = "bicubic"
    size: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    upright: bool = False


def decoder() -> str:
    """Libraries that decode, with versions: the same JPEG may become other pixels elsewhere."""
    return f"Pillow {pillow}, libjpeg-turbo {features.version('libjpeg_turbo')}, libwebp {features.version('webp')}"


def decode(data: bytes, geometry: Geometry) -> tuple[bytes, str]:
    """Pixels uint8 (H,W,C) row by row, and the format of the file's pixels, Pillow's word; raises Unusable."""
    image = _load(data, geometry.upright)
    mode = image.mode
    image = _convert(image, geometry.channels)
    if geometry.size and image.size != geometry.size:
        raise Unusable(f"it is {_size(image.size)} pixels and must be {_size(geometry.size)}")
    if geometry.crop:
        image = image.crop(geometry.crop)
    return RESIZES[geometry.resize](image, geometry).tobytes(), mode


def _load(data: bytes, upright: bool) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_deep(image)
            image.load()
            # Asking Pillow for an orientation costs as much as decoding a small image, so look for its places first.
            if upright and (image.format == "TIFF" or any(key in image.info for key in TURNED)):
                ImageOps.exif_transpose(image, in_place=True)
        return image
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unusable("it is empty, damaged, or no image") from None
    except OSError as error:
        raise Unusable(f"it is damaged ({error})") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError, struct.error and more
        raise Unusable(f"it is damaged ({type(error).__name__}: {error})") from None


def _refuse_deep(image: ImageFile.ImageFile) -> None:
    """Refuse what has more than 8 bits a channel: how to scale it is for its owner to say.

    Pillow would clip 16-bit grey at 255, and drop the low bytes of 16-bit RGB, without a word.
    """
    deep = image.format != "JPEG" and any(_is_deep(tile.codec_name, tile.args) for tile in image.tile)
    if deep or image.mode not in CONVERTED:
        what = "more than 8 bits a channel" if deep else f"the pixel format {image.mode}"
        raise Unusable(f"it has {what}, and only 8-bit grey, palette, RGB, YCbCr and CMYK are read")


def _is_deep(codec: str, args: Any) -> bool:
    """By what Pillow's decoder is given: a raw mode such as RGB;16B, or the largest level of a PPM."""
    if codec.startswith("ppm"):
        return int(args[1]) > 255
    return re.search(r";16[BLN]", str(args)) is not None


def _convert(image: Image.Image, channels: int) -> Image.Image:
    wanted = "RGB" if channels == 3 else "L"
    if image.mode == wanted and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _keep(image: Image.Image, geometry: Geometry) -> Image.Image:
    side = geometry.resolution
    if image.size != (side, side):
        raise Unusable(f"it is {_size(image.size)} pixels and must be {_size((side, side))}, since it is not resized")
    return image


def _short_side(image: Image.Image, geometry: Geometry) -> Image.Image:
    """Short side to the resolution (the long side is rounded to whole pixels), then the centre; nothing is enlarged."""
    if min(image.size) < geometry.resolution:
        raise Unusable(f"it is {_size(image.size)} pixels and its short side must have at least {geometry.resolution}")
    return _scaled_centre(image, geometry.resolution, Image.Resampling[geometry.filter.upper()])


def _halving(image: Image.Image, geometry: Geometry) -> Image.Image:
    """`center_crop_arr` of guided-diffusion: halved by means of 2x2 while twice too large, then as the short side.

    Small images are enlarged, as they are there.
    """
    while min(image.size) >= 2 * geometry.resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return _scaled_centre(image, geometry.resolution, Image.Resampling[geometry.filter.upper()])


def _scaled_centre(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    if image.size == (side, side):
        return image
    scale = side / min(image.size)
    if scale != 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), resample)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _squash(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Both sides to the resolution, whatever the aspect, as `cv2.resize` does by default."""
    side = geometry.resolution
    if image.size == (side, side):
        return np.asarray(image)
    if min(image.size) <= side:
        raise Unusable(f"it is {_size(image.size)} pixels and both sides must exceed {side}")
    return bilinear(np.asarray(image), side)


def bilinear(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H,W,C), H and W > side -> (side,side,C) by interpolation between the four nearest pixels, no antialiasing.

    In OpenCV's fixed point (INTER_LINEAR of 8-bit images); equal to the last bit to `cv2.resize` of 4.14 and 5.0 when
    this was written. Where both sides are exactly halved OpenCV takes means of 2x2 instead.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (2 * side, 2 * side):
        quads = pixels.reshape(side, 2, side, 2, -1).astype(np.int32)
        return ((quads.sum((1, 3)) + 2) >> 2).astype(np.uint8)
    (top, bottom, down), (left, right, across) = _taps(height, side), _taps(width, side)
    rows = pixels.take(np.concatenate([top, bottom]), 0).astype(np.int32)
    wide = rows.take(left, 1) * across[0][:, None] + rows.take(right, 1) * across[1][:, None]
    upper, lower = ((w[:, None, None] * (half >> 4)) >> 16 for w, half in zip(down, np.split(wide, 2), strict=True))
    return ((upper + lower + 2) >> 2).astype(np.uint8)


@lru_cache
def _taps(source: int, side: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """For each of `side` < `source` pixels its two neighbours in the source, and their weights in units of 1/2048."""
    place = ((np.arange(side) + 0.5) * (source / side) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = place - first.astype(np.float32)
    near, far = (np.rint(w * np.float32(2048)).astype(np.int32) for w in (np.float32(1) - share, share))
    return first, first + 1, (near, far)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


RESIZES: dict[str, Callable[[Image.Image, Geometry], Image.Image | np.ndarray]] = {
    "none": _keep,
    "short-side": _short_side,
    "halving": _halving,
    "squash": _squash,
}
