"""The spread of scores over sets of samples within trainings."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.reporting.summaries import spread


def test_the_spread_over_sets_is_the_root_of_the_mean_variance() -> None:
    random = np.random.default_rng(0)
    scores = 10 + random.normal(size=(4000, 1)) + 2 * random.normal(size=(4000, 5))
    rows = pd.DataFrame({"value": scores.mean(1), "sets": 5, "set_sd": scores.std(1, ddof=1)})
    assert spread(rows) == {"sets": 5, "set_sd": pytest.approx(2.0, rel=0.03)}


def test_without_sets_there_is_none() -> None:
    assert spread(pd.DataFrame({"sets": [pd.NA], "set_sd": [np.nan]})) == {}
