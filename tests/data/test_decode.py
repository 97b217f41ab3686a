"""Pixels against Pillow's own decoding and, for resizing, against torch's antialiased interpolation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from pipeline_lib.data.decode import Geometry, Unusable, decode, decode_block
from pipeline_lib.exits import BadData
from tests.data.pictures import picture, put, put_rgb16, put_truncated

RGB, GREY = Geometry(12, 3, "none", "bicubic"), Geometry(12, 1, "none", "bicubic")


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


def test_a_failing_file_system_is_not_a_damaged_image() -> None:
    with pytest.raises(BadData, match=r"gone.png cannot be read \(No such file"):
        decode("gone.png", RGB)


def test_a_block_keeps_the_usable_images_and_says_what_was_wrong_with_the_others() -> None:
    files = [
        str(put(Path("a.png"))),
        str(put_truncated(Path("b.jpg"))),
        str(put(Path("c.png"), picture(seed=1).convert("L"))),
    ]
    block = decode_block(files, RGB)
    assert (block.places, [p for p, _ in block.unusable], dict(block.modes)) == ([0, 2], [1], {"RGB": 1, "L": 1})
    np.testing.assert_array_equal(block.images, [pillow(Path("a.png"), "RGB"), pillow(Path("c.png"), "RGB")])
