from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.data.grid import save_grid


def test_small_images_are_enlarged_by_nearest_neighbour_and_laid_out_row_by_row() -> None:
    images = np.zeros((5, 3, 8, 8), np.uint8)
    images[:, 1] = 40 * np.arange(5)[:, None, None]
    images[4, :, 0, 7] = 255
    save_grid(images, Path("grid.png"))
    pixels = np.asarray(Image.open("grid.png"))
    assert pixels.shape == (2 * 64 + 2, 3 * 64 + 4, 3)  # 3 columns, 2 rows, 8 px enlarged 8 times, gaps of 2
    np.testing.assert_array_equal(pixels[:64, 66:130], np.broadcast_to([0, 40, 0], (64, 64, 3)))
    second_row = pixels[66:130, 66:130]
    assert (second_row[:8, 56:] == 255).all()
    np.testing.assert_array_equal(second_row[8:], np.broadcast_to([0, 160, 0], (56, 64, 3)))
    assert (pixels[66:, 132:] == 255).all()  # no sixth image


def test_columns_and_scale_can_be_given_and_grey_stays_grey() -> None:
    save_grid(np.full((4, 1, 5, 7), 9, np.uint8), Path("grid.png"), columns=4, scale=1)
    image = Image.open("grid.png")
    assert (image.size, image.mode) == ((4 * 7 + 6, 5), "L")
    assert np.asarray(image)[0, 0] == 9


def test_large_images_keep_their_size() -> None:
    save_grid(np.zeros((1, 3, 100, 100), np.uint8), Path("grid.png"))
    assert Image.open("grid.png").size == (100, 100)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 3, 4, 4)), np.zeros((1, 2, 4, 4), np.uint8), np.zeros((0, 1, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a grid needs"):
        save_grid(images, Path("grid.png"))
