"""Both levels of the spread of scores: sets of samples within trainings."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.reporting.summaries import spread

TRAININGS, SETS = 4000, 5


def drawn(of_trainings: float, of_sets: float) -> tuple[pd.DataFrame, "pd.Series[float]"]:
    """The rows of scores of many trainings with these standard deviations, and their values by seed."""
    random = np.random.default_rng(0)
    scores = 10 + of_trainings * random.normal(size=(TRAININGS, 1)) + of_sets * random.normal(size=(TRAININGS, SETS))
    rows = pd.DataFrame({"value": scores.mean(1), "sets": SETS, "set_sd": scores.std(1, ddof=1)})
    return rows, rows["value"]


@pytest.mark.parametrize(("of_trainings", "of_sets"), [(1.0, 2.0), (2.0, 0.5)])
def test_both_levels_are_found_apart(of_trainings: float, of_sets: float) -> None:
    found = spread(*drawn(of_trainings, of_sets))
    assert found["set_sd"] == pytest.approx(of_sets, rel=0.03)
    assert found["training_sd"] == pytest.approx(of_trainings, rel=0.05)
    whole = np.sqrt(of_trainings**2 + of_sets**2 / SETS)
    assert found["se"] == pytest.approx(whole / np.sqrt(TRAININGS), rel=0.03)


def test_no_spread_of_trainings_is_no_negative_one() -> None:
    rows, _ = drawn(0.0, 1.0)
    few = rows.iloc[:2].assign(value=[10.0, 10.0])
    assert spread(few, few["value"])["training_sd"] == 0


def test_a_single_training_says_nothing_of_others() -> None:
    rows, values = drawn(1.0, 1.0)
    found = spread(rows[:1], values[:1])
    assert np.isnan([found["training_sd"], found["se"]]).all()
    assert found["set_sd"] == rows["set_sd"].iloc[0]


def test_without_sets_there_are_no_levels() -> None:
    assert spread(pd.DataFrame({"sets": [pd.NA], "set_sd": [np.nan]}), pd.Series([1.0])) == {}
