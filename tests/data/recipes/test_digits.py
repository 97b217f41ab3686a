from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from pipeline_lib.data.recipes.digits import Options, prepare


def test_grey_levels_are_spread_over_eight_bits_and_can_be_told_apart() -> None:
    source = prepare(Options(), Path())
    images, raw = np.load(source.images), load_digits().images
    assert (images.shape, images.dtype) == ((1797, 1, 8, 8), np.uint8)
    levels = [round(v * 255 / 16) for v in range(17)]
    assert levels[:3] == [0, 16, 32]
    assert (levels[8], levels[-1], len(set(levels))) == (128, 255, 17)
    np.testing.assert_array_equal(images[:, 0], np.array(levels)[raw.astype(int)])


def test_labels_and_notes() -> None:
    source = prepare(Options(), Path())
    assert source.classes == [str(n) for n in range(10)]
    assert source.labels is not None
    np.testing.assert_array_equal(source.labels, load_digits().target)
    assert "round(v * 255 / 16)" in source.notes["pixels"]
    assert "no flips" in source.notes["augmentation"]
