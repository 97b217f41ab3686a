"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, which come with the library, so nothing is downloaded.

Their 17 grey levels v = 0..16 become uint8 by round(v * 255 / 16), which keeps them apart and spans the whole range.
"""

from pathlib import Path

from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Official, Source

NOTES = {
    "split": "all",
    "source": (
        "scikit-learn load_digits: the test set of UCI's 'Optical Recognition of Handwritten Digits' "
        "(E. Alpaydin and C. Kaynak, 1998)"
    ),
    "size": "8x8 as published",
    "duplicates": 0,
    "licence": "CC BY 4.0 (UCI Machine Learning Repository); scikit-learn, which ships the copy, is BSD-3-Clause",
    "pixels": "grey levels 0..16 become uint8 by round(v * 255 / 16)",
    "augmentation": "no flips: a mirrored digit is no digit",
}


class Options(Model):
    """There is nothing to choose."""


def official(options: Options) -> Official:
    """They come with scikit-learn."""
    return Official(1797, (1, 8, 8), 0, 0, "counted")


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (1797,1,8,8) and labels 0..9."""
    import numpy as np
    from sklearn.datasets import load_digits

    from pipeline_lib.data.arrays import save

    data = load_digits()
    save(folder / "images.npy", np.rint(data.images * 255 / 16).astype(np.uint8)[:, None])
    return Source(folder / "images.npy", data.target.astype(np.int64), [str(n) for n in data.target_names], NOTES)
