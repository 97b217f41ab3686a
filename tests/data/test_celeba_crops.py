import numpy as np
from PIL import Image

from tests.data.celeba_crops import crops, draw_face, picture
from tests.workflow.conftest import ROOT


def test_the_same_face_is_three_pictures() -> None:
    """Where the eyes are tells the crops apart: in a 64x64 image, from the recipes' boxes."""
    found = crops(draw_face())
    scales = {
        "celeba64-ddim": (25, 57, 0.5, 0.5),
        "celeba64-scoresde": (19, 39, 64 / 140, 64 / 140),
        "celeba64-ddpmip": (0, 0, 64 / 178, 64 / 218),
    }
    for name, (left, top, across, down) in scales.items():
        eye = (slice(round((106 - top) * down), round((116 - top) * down)), slice(round((60 - left) * across), None))
        white = found[name][eye].min(-1) > 200
        seen = np.flatnonzero(white.any(0))[0] + eye[1].start
        assert abs(seen - (60 - left) * across) < 3, name


def test_the_picture_of_the_page_is_as_the_recipes_are_now() -> None:
    drawn = np.asarray(picture())[26:]  # without the line of text, whose font may differ
    committed = np.asarray(Image.open(ROOT / "docs/images/celeba-crops.png").convert("RGB"))[26:]
    assert np.abs(drawn.astype(int) - committed).mean() < 1
