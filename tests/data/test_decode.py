"""Pixels against Pillow's own decoding and, for resizing, against torch's antialiased interpolation."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch.nn import functional

from pipeline_lib.data import decode as module
from pipeline_lib.data.decode import Geometry, Unusable, bilinear
from tests.data.pictures import picture, put, put_rgb16, put_truncated

CV2_SQUASHED, CV2_HALVED = "a30214298cca80b0", "e3ca368f4a32810e"
RGB, GREY = Geometry(12, 3, "none", upright=True), Geometry(12, 1, "none", upright=True)


def decode(path: Path | str, geometry: Geometry) -> tuple[np.ndarray, str]:
    """Pixels (C,H,W) and mode of a file."""
    data, mode = module.decode(Path(path).read_bytes(), geometry)
    pixels = np.frombuffer(data, np.uint8).reshape(geometry.resolution, geometry.resolution, geometry.channels)
    return pixels.transpose(2, 0, 1), mode


def pillow(path: Path, mode: str) -> np.ndarray:
    pixels = np.asarray(Image.open(path).convert(mode))
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif"])
@pytest.mark.parametrize("geometry", [RGB, GREY])
def test_colour_files(name: str, geometry: Geometry) -> None:
    pixels, mode = decode(put(Path(name)), geometry)
    np.testing.assert_array_equal(pixels, pillow(Path(name), "RGB" if geometry is RGB else "L"))
    assert (mode, pixels.dtype) == ("RGB", np.uint8)


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.jpg"), ("L", "a.png"), ("1", "a.png"), ("P", "a.png"), ("CMYK", "a.jpg")]
)
def test_other_modes_are_converted(mode: str, name: str) -> None:
    pixels, seen = decode(put(Path(name), picture().convert(mode)), RGB)
    assert seen == mode
    np.testing.assert_array_equal(pixels, pillow(Path(name), "RGB"))
    if mode == "CMYK":  # not its negative, as Adobe's inverted files come out in some readers
        assert np.abs(pixels.astype(int) - np.asarray(picture()).transpose(2, 0, 1)).mean() < 20


def test_transparency_is_laid_over_white() -> None:
    image = picture().convert("RGBA")
    alpha = np.zeros((12, 12), np.uint8)
    alpha[:6] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels, mode = decode(put(Path("a.png"), image), RGB)
    np.testing.assert_array_equal(pixels[:, :6], np.asarray(picture()).transpose(2, 0, 1)[:, :6])
    assert (pixels[:, 6:] == 255).all()
    assert mode == "RGBA"
    palette = Image.new("P", (12, 12), 0)
    palette.putpalette([10, 20, 30])
    assert (decode(put(Path("b.png"), palette, transparency=0), GREY)[0] == 255).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    put(Path("a.png"), exif=exif)
    pixels, _ = decode("a.png", RGB)
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(picture()), -1).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(48, 32), (32, 56), (24, 24), (18, 12)])
def test_the_short_side_is_resized_and_the_centre_cropped(name: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    width, height = size[0] * 12 // min(size), size[1] * 12 // min(size)
    floats = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(floats, (height, width), mode=name, antialias=True)[0].clamp(0, 255)
    left, top = (width - 12) // 2, (height - 12) // 2
    expected = resized[:, top : top + 12, left : left + 12].numpy()
    pixels, _ = decode(put(Path("a.png"), image), Geometry(12, 3, "short-side", name))
    np.testing.assert_allclose(pixels, expected, atol=1.01)  # Pillow computes in fixed point, in two rounded passes


def test_the_box_filter_is_the_mean_of_blocks() -> None:
    image = picture(48, 36)
    blocks = np.asarray(image, float).reshape(12, 3, 16, 3, 3).mean((1, 3))[:, 2:14]
    pixels, _ = decode(put(Path("a.png"), image), Geometry(12, 3, "short-side", "box"))
    np.testing.assert_allclose(pixels, blocks.transpose(2, 0, 1), atol=1)


def test_sixteen_bits_are_refused() -> None:
    ramp = (np.arange(144, dtype=np.uint16) * 300).reshape(12, 12)
    for path in [put(Path("grey.png"), Image.fromarray(ramp)), put_rgb16(Path("rgb.png"))]:
        with pytest.raises(Unusable, match="more than 8 bits"):
            decode(path, RGB)


@pytest.mark.parametrize("head", [b"P6 12 12 65535\n", b"P6 12 12 1023\n", b"P5 12 12 4095\n"])
def test_deep_pixmaps_are_refused(head: bytes) -> None:
    levels = np.arange(12 * 12 * 3, dtype=">u2")
    Path("a.ppm").write_bytes(head + levels.tobytes())
    with pytest.raises(Unusable, match="more than 8 bits"):
        decode("a.ppm", RGB)
    plain = b"P3 12 12 65535\n" + b" ".join(b"%d" % n for n in levels)
    Path("b.ppm").write_bytes(plain)
    with pytest.raises(Unusable, match="more than 8 bits"):
        decode("b.ppm", RGB)
    Path("c.ppm").write_bytes(b"P3 12 12 255\n" + b" ".join(b"%d" % (n % 256) for n in levels))
    np.testing.assert_array_equal(decode("c.ppm", RGB)[0].transpose(1, 2, 0).ravel(), levels % 256)


def test_a_large_colour_profile_or_comment_is_no_damage() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 3_000_000, zip=True)
    for name, options in {"a.png": {"icc_profile": bytes(3_000_000)}, "b.png": {"pnginfo": text}}.items():
        pixels, _ = decode(put(Path(name), **options), RGB)
        np.testing.assert_array_equal(pixels, np.asarray(picture()).transpose(2, 0, 1))


def test_unknown_pixel_formats_are_refused() -> None:
    with pytest.raises(Unusable, match="pixel format F"):
        decode(put(Path("a.tif"), picture().convert("F")), RGB)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_unusable(content: bytes) -> None:
    Path("a.png").write_bytes(content)
    with pytest.raises(Unusable, match="damaged"):
        decode("a.png", RGB)


def test_truncated_files_are_unusable() -> None:
    with pytest.raises(Unusable, match=r"damaged .*truncated"):
        decode(put_truncated(Path("a.jpg")), RGB)
    whole = put(Path("a.png"), picture(64, 64)).read_bytes()
    Path("a.png").write_bytes(whole[:-2000])
    with pytest.raises(Unusable, match="damaged"):
        decode("a.png", RGB)


def test_nothing_is_enlarged() -> None:
    put(Path("a.png"), picture(40, 11))
    with pytest.raises(Unusable, match="it is 40x11 pixels and its short side must have at least 12"):
        decode("a.png", Geometry(12, 3, "short-side", "bicubic"))
    with pytest.raises(Unusable, match="it is 40x11 pixels and must be 12x12"):
        decode("a.png", RGB)


def test_orientation_is_ignored_unless_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(Path("a.jpg"), exif=exif)
    pixels, _ = decode("a.jpg", Geometry(12, 3, "none"))
    np.testing.assert_array_equal(pixels, pillow(Path("a.jpg"), "RGB"))
    turned, _ = decode("a.jpg", RGB)
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1, axes=(1, 2)))


def four_pixels(image: np.ndarray, side: int) -> np.ndarray:
    """Bilinear interpolation by its definition, one pixel at a time, in exact fractions."""
    height, width, channels = image.shape
    out = np.empty((side, side, channels))
    for i, j in np.ndindex(side, side):
        y, x = (i + 0.5) * height / side - 0.5, (j + 0.5) * width / side - 0.5
        r, c = int(y), int(x)
        v, u = y - r, x - c
        upper = (1 - u) * image[r, c].astype(float) + u * image[r, c + 1]
        lower = (1 - u) * image[r + 1, c].astype(float) + u * image[r + 1, c + 1]
        out[i, j] = (1 - v) * upper + v * lower
    return out


@pytest.mark.parametrize("size", [(218, 178), (40, 90), (33, 65)])
def test_squashing_interpolates_between_four_pixels(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    side = 32
    found = bilinear(image, side)
    np.testing.assert_allclose(found, four_pixels(image, side), atol=0.8)  # half a level, and 1/2048 in the weights
    floats = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    other = functional.interpolate(floats, (side, side), mode="bilinear", antialias=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, other.numpy(), atol=0.8)


def test_squashing_equals_opencv_bit_by_bit() -> None:
    """Values of cv2.resize (opencv-python-headless 4.14 and 5.0) for this very image."""
    image = (np.arange(218 * 178 * 3).reshape(218, 178, 3) * 7919 % 251).astype(np.uint8)
    assert hashlib.sha256(bilinear(image, 64)).hexdigest()[:16] == CV2_SQUASHED
    assert hashlib.sha256(bilinear(image[:128, :128].copy(), 64)).hexdigest()[:16] == CV2_HALVED


def test_squashing_ignores_the_aspect_and_enlarges_nothing() -> None:
    put(Path("a.png"), picture(30, 20))
    assert decode("a.png", Geometry(12, resize="squash"))[0].shape == (3, 12, 12)
    with pytest.raises(Unusable, match="it is 30x20 pixels and both sides must exceed 20"):
        decode("a.png", Geometry(20, resize="squash"))


def test_a_crop_is_cut_out_before_resizing() -> None:
    image = picture(20, 30)
    geometry = Geometry(6, filter="bilinear", size=(20, 30), crop=(3, 5, 15, 17))
    expected = np.asarray(Image.fromarray(np.asarray(image)[5:17, 3:15]).resize((6, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(put(Path("a.png"), image), geometry)[0], expected.transpose(2, 0, 1))
    with pytest.raises(Unusable, match="it is 30x20 pixels and must be 20x30"):
        decode(put(Path("b.png"), picture(30, 20)), geometry)


@pytest.mark.parametrize("size", [(100, 61), (50, 47), (24, 30), (13, 9)])
def test_halving_takes_means_of_two_by_two_and_may_enlarge(size: tuple[int, int]) -> None:
    image = picture(*size)
    pixels = np.asarray(image)
    while min(pixels.shape[:2]) >= 24:
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
        if (height, width) != pixels.shape[:2]:
            break  # Pillow weighs the odd row in; compared below with Pillow only
        quads = pixels.reshape(height // 2, 2, width // 2, 2, 3).astype(int)
        pixels = ((quads.sum((1, 3)) + 2) // 4).astype(np.uint8)
    smaller = Image.fromarray(pixels)
    while min(smaller.size) >= 24:
        smaller = smaller.resize((smaller.width // 2, smaller.height // 2), Image.Resampling.BOX)
    scale = 12 / min(smaller.size)
    wide = smaller.resize((round(smaller.width * scale), round(smaller.height * scale)), Image.Resampling.BICUBIC)
    array = np.asarray(wide)
    top, left = (array.shape[0] - 12) // 2, (array.shape[1] - 12) // 2
    found, _ = decode(put(Path("a.png"), image), Geometry(12, resize="halving"))
    np.testing.assert_allclose(found, array[top : top + 12, left : left + 12].transpose(2, 0, 1), atol=1)
