"""Disk that a dataset needs, before anything is downloaded."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline_lib.config.base import load_part, part


def needs(recipe: Mapping[str, Any] | str, holdout: int = 0) -> dict[str, int | str]:
    """Bytes that `recipe` (a name, or a name with options) needs in each stage; empty for recipes that do not say.

    count: images, held-out ones too. download: what is got from the publisher. source: unpacked. prepared: the arrays,
    without labels (8 bytes an image). preparing: the most that lies in the store while it is made; a holdout copies all
    images once. known: where download and source come from. Raises BadConfig for wrong options, BadData for an image
    folder that is not there.
    """
    module, options = load_part("data/recipes", part("data/recipes", recipe, "recipe"))
    if not hasattr(module, "official"):
        return {}
    official = module.official(options)
    expected = getattr(options, "expected", None)
    count = expected if isinstance(expected, int) else official.count
    prepared = count * math.prod(official.shape)
    return {
        "count": count,
        "download": official.download,
        "source": official.unpacked,
        "prepared": prepared,
        "preparing": prepared * (2 if holdout else 1),
        "known": official.known,
    }
