"""One drawn face under the three ways from CelebA's 178x218 to 64x64.

`python -m tests.data.celeba_crops docs/images/celeba-crops.png` draws the picture of docs/datasets.md.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline_lib.data.decode import decode
from pipeline_lib.data.recipes import celeba64_ddim, celeba64_ddpmip, celeba64_scoresde

RECIPES = {
    "celeba64-ddim": (celeba64_ddim, "red"),
    "celeba64-scoresde": (celeba64_scoresde, "blue"),
    "celeba64-ddpmip": (celeba64_ddpmip, "black"),
}
ENLARGED, GAP, LINE = 5, 16, 26


def draw_face() -> Image.Image:
    """A face where CelebA's alignment puts it, at 178x218: eyes at about (69, 111) and (108, 111)."""
    image = Image.new("RGB", (178, 218), (120, 150, 170))
    draw = ImageDraw.Draw(image)
    for x in range(0, 178, 4):  # fine stripes behind it, in which aliasing shows
        draw.line([(x, 0), (x, 217)], (95, 125, 150), 2)
    draw.ellipse([36, 28, 142, 160], (70, 45, 30))  # hair
    draw.rectangle([36, 94, 142, 190], (70, 45, 30))
    draw.rectangle([74, 160, 104, 200], (205, 160, 130))  # neck
    draw.ellipse([14, 186, 164, 300], (60, 80, 60))  # shoulders
    draw.ellipse([49, 56, 129, 176], (225, 180, 150))  # face
    for x in (69, 108):
        draw.ellipse([x - 10, 106, x + 10, 116], "white")
        draw.ellipse([x - 4, 106, x + 5, 116], (60, 90, 60))
        draw.arc([x - 13, 94, x + 13, 112], 200, 340, (70, 45, 30), 3)
    draw.polygon([(89, 114), (82, 136), (96, 136)], (205, 155, 125))  # nose
    draw.chord([72, 140, 106, 160], 0, 180, (170, 70, 70))  # mouth
    return image


def crops(face: Image.Image) -> dict[str, np.ndarray]:
    """uint8 (64,64,3) by recipe."""
    data = io.BytesIO()
    face.save(data, "PNG")
    return {
        name: np.frombuffer(decode(data.getvalue(), recipe.geometry())[0], np.uint8).reshape(64, 64, 3)
        for name, (recipe, _) in RECIPES.items()
    }


def picture() -> Image.Image:
    """The face with its crop boxes, and what the recipes make of it, pixels enlarged."""
    face, side = draw_face(), 64 * ENLARGED
    height = 218 * side // 218
    wide = 178 * height // 218
    canvas = Image.new("RGB", (wide + 3 * (side + GAP), height + LINE), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    canvas.paste(face.resize((wide, height), Image.Resampling.NEAREST), (0, LINE))
    draw.text((0, 4), "178x218, as published", "black", font)
    for column, (name, pixels) in enumerate(crops(face).items()):
        recipe, colour = RECIPES[name]
        left = wide + GAP + column * (side + GAP)
        canvas.paste(Image.fromarray(pixels.repeat(ENLARGED, 0).repeat(ENLARGED, 1)), (left, LINE))
        draw.text((left, 4), name, colour, font)
        box = np.array(recipe.geometry().crop or (0, 0, 178, 218)) * height / 218
        draw.rectangle(np.add(box, (0, LINE, -1, LINE - 1)).round().astype(int).tolist(), outline=colour, width=3)
    return canvas


if __name__ == "__main__":
    picture().save(Path(sys.argv[1]), optimize=True)
