"""Paired differences of scores: nothing against itself, exact distances in their intervals, sentences where none is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import IDENTITY, SCORE_DIFFERENCES, SCORE_INFLUENCES, SCORES, write
from pipeline_lib.reporting import score_differences, tables
from pipeline_lib.reporting.collect import collect
from pipeline_lib.scores import frechet
from pipeline_lib.scores.estimates import Estimate
from tests.reporting.conftest import Tree, score

COUNT, DIM, SHIFT = 400, 4, 0.5  # images, features, shift of the worse method's mean in each of them
STANDARD = frechet.Moments.given(torch.zeros(DIM, dtype=torch.float64), torch.eye(DIM, dtype=torch.float64))
METRIC = "FD (classifier-digits)"
Build = Callable[..., Tree]


def features(seed: int) -> torch.Tensor:
    """What the noise of COUNT images becomes: standard normal features."""
    return torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(built: Tree, method: str, seed: int, found: Estimate, **protocol: Any) -> None:
    """The records of the scores stage."""
    place = built.folder / f"digits/{method}/base/s{seed}/ancestral/scores"
    row = {**score(20, found.value), "se": found.se, "samples": len(found.influence), **protocol}
    recall = {**score(20, 0.5), "metric": "recall"}  # which has no influences
    write(place / "scores.parquet", [row, recall], SCORES)
    shares = [{"nfe": 20, "metric": METRIC, "images": found.influence.astype(np.float32)}]
    write(place / "influences.parquet", shares, SCORE_INFLUENCES)


def pair(built: Tree, x: torch.Tensor, y: torch.Tensor, seed: int = 0) -> None:
    """Scores of the control's features x and of the method's y."""
    for method, drawn in (("ddpm", x), ("other", y)):
        scored(built, method, seed, frechet.estimate(STANDARD, drawn))


def found(built: Tree) -> pd.DataFrame:
    return collect(built.folder, built.experiment)["score_difference"]


def test_equal_images_differ_by_nothing(tree: Build) -> None:
    built = tree(seeds=(0,)).complete()
    pair(built, features(0), features(0))
    rows = found(built)
    assert list(rows.columns) == [c.name for c in [*IDENTITY, *SCORE_DIFFERENCES]]
    assert rows[["method", "of", "control", "seeds", "n"]].to_numpy().tolist() == 2 * [
        ["other", "method", "ddpm/base", 1, COUNT]
    ]
    assert (rows[["difference", "se", "low", "high"]] == 0).all(axis=None)
    assert rows["metric"].eq(METRIC).all()


def test_intervals_hold_the_exact_difference_of_shifted_gaussians_as_often_as_they_say(tree: Build) -> None:
    """A shifted mean adds d SHIFT^2 to the squared distance; spread and its bias are common to both and cancel."""
    repeats, exact = 40, DIM * SHIFT**2
    built = tree(seeds=tuple(range(repeats)))
    for seed in range(repeats):
        for method in ("ddpm", "other"):
            built.train(method, seed)
            built.draw(method, seed, 1.0, 1)
        pair(built, features(seed), features(seed) + SHIFT, seed)
    built.dataset()
    rows = found(built)
    each = rows[rows["seed"].notna()]
    assert len(each) == repeats
    assert (each["low"] > 0).all()
    held = (each["low"] < exact) & (each["high"] > exact)
    assert 0.85 <= held.mean() <= 1
    assert each["difference"].std() == pytest.approx(each["se"].mean(), rel=0.3)
    apart = [frechet.estimate(STANDARD, features(0) + by).se for by in (0, SHIFT)]
    exact_se = 2 * SHIFT * (DIM / COUNT) ** 0.5  # of 2 SHIFT sum_d mean_d, which alone is left [derived]
    assert each["se"].mean() == pytest.approx(exact_se, rel=0.1)
    assert np.hypot(*apart) > 1.02 * exact_se  # if they were independent


def test_the_mean_over_seeds_knows_that_seeds_share_the_noise_of_an_image(tree: Build) -> None:
    """Both seeds draw the same images: a second seed then tells nothing new, and must not narrow the interval."""
    built = tree().complete()
    for seed in (0, 1):
        pair(built, features(3), features(3) + SHIFT, seed)
    rows = found(built)
    assert rows["seed"].fillna(-1).tolist() == [0, 1, -1]
    assert rows["seeds"].tolist() == [1, 1, 2]
    assert rows["se"].tolist() == pytest.approx([rows["se"].iloc[0]] * 3)
    pair(built, features(4), features(4) + SHIFT, 1)
    rows = found(built)
    assert rows["se"].iloc[2] == pytest.approx(np.hypot(*rows["se"][:2]) / 2, rel=0.1)  # independent ones do
    assert rows["difference"].iloc[2] == pytest.approx(rows["difference"][:2].mean())
    assert rows["value"].iloc[2] == pytest.approx(rows["value"][:2].mean())


@pytest.mark.parametrize(
    ("content", "note"),
    [("cut short", score_differences.NO_INFLUENCES), (None, score_differences.NO_INFLUENCES)],
)
def test_lost_influences_give_a_sentence_and_no_number(tree: Build, content: str | None, note: str) -> None:
    built = tree().complete()
    for seed in (0, 1):
        pair(built, features(seed), features(seed) + SHIFT, seed)
    path = built.folder / "digits/ddpm/base/s1/ancestral/scores/influences.parquet"
    path.unlink() if content is None else write_text(path, content)
    rows = found(built)
    assert rows["note"].tolist() == ["", note, ""]
    assert rows["difference"].notna().tolist() == [True, False, True]
    assert rows["seeds"].tolist() == [1, 1, 1]  # the mean is that of the seed that is left
    tables.run(built.folder, built.experiment)
    text = (built.folder / "tables/score_difference.md").read_text()
    assert note in text.partition("## Without a difference")[2]


def test_other_numbers_of_images_other_extractors_and_missing_scores_are_not_paired(tree: Build) -> None:
    built = tree(seeds=(0,)).complete()
    one = frechet.estimate(STANDARD, features(0))
    scored(built, "other", 0, one, extractor_sha="a", reference_sha="r")
    scored(built, "ddpm", 0, frechet.estimate(STANDARD, features(0)[:300]), extractor_sha="a", reference_sha="r")
    assert found(built)["note"].tolist() == ["not paired: 400 and 300 samples cannot be paired"]
    for changed in ({"extractor_sha": "b", "reference_sha": "r"}, {"extractor_sha": "a", "reference_sha": None}):
        scored(built, "ddpm", 0, one, **changed)
        assert found(built)["note"].tolist() == [score_differences.OTHER_SCORE]
    scored(built, "ddpm", 0, one, metric="FID")
    assert found(built)["note"].tolist() == [score_differences.NO_SCORE]
    built.experiment["methods"]["ddpm"]["samplings"] = []
    assert found(built)["note"].tolist() == [score_differences.NOT_SAMPLED]


def test_without_a_control_there_is_no_row(tree: Build) -> None:
    built = tree(seeds=(0,)).complete()
    pair(built, features(0), features(0))
    built.experiment["methods"]["other"]["variants"]["base"]["control"] = None
    assert found(built).empty
