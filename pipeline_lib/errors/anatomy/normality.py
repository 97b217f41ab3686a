"""Whether errors of the predicted x_0 are normal: Shapiro and Wilk's test on every pixel (Ning et al., 2023, 2024).

The theory of exposure bias takes e = x_0 - x_0(x_t) as Gaussian. At true x_t, of each pixel `draws` errors over images
are tested: `rejected` is the share of pixels that the test rejects, `level` of them where all errors are normal. Images
are cut into as many such sets as there are, at most 5; the standard error is over sets, since pixels of an image
depend on each other. It is a test of each pixel alone: errors that are normal but depend on each other pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    import numpy as np

    from pipeline_lib.errors.anatomy._views import At

SETS = 5


class Options(Model):
    """How the test is made."""

    draws: int = Field(50, ge=8, le=5000, description="errors of a pixel in one test")
    level: float = Field(0.05, gt=0, lt=0.5, description="a test rejects where its p-value is below")
    pixels: int = Field(64, ge=1, description="at most so many pixels are tested, spread evenly over the image")


class Normality(Measure):
    def __init__(self, options: Options) -> None:
        self.options = options

    def at(self, here: At) -> Iterator[Reading]:
        import torch

        from pipeline_lib.errors.exposure import mean

        if here.is_clean or here.count < 2 * self.options.draws:
            return
        error = (here.x0 - here.trained.x0).flatten(1).double().cpu().numpy()
        shares = rejected(error, self.options)
        yield Reading("rejected", mean(torch.from_numpy(shares)), len(shares) * self.options.draws)


def rejected(error: np.ndarray, options: Options) -> np.ndarray:
    """Share of rejected pixels in each set of images, from errors (N, d); pixels without any error are left out."""
    import numpy as np
    from scipy.stats import shapiro

    chosen = np.unique(np.linspace(0, error.shape[1] - 1, min(options.pixels, error.shape[1])).round().astype(int))
    count = min(SETS, len(error) // options.draws)
    sets = error[: count * options.draws, chosen].reshape(count, options.draws, -1)
    sets = sets[:, :, (np.ptp(sets, axis=1) > 0).all(0)]
    low = [[shapiro(pixel).pvalue < options.level for pixel in one.T] for one in sets]
    return np.array(low, dtype=float).reshape(count, -1).mean(1)


def build(options: Options) -> Normality:
    """The measure."""
    return Normality(options)
