"""The spread between trainings in the tables and the report: by hand, cut off where it is below zero, absent of one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline_lib.records.files import write_text
from pipeline_lib.reporting import progress, report, tables, trainings
from pipeline_lib.reporting.collect import collect
from pipeline_lib.scores.estimates import Estimate
from tests.reporting import test_progress as curves
from tests.reporting.conftest import Tree
from tests.reporting.test_score_differences import METRIC, scored

N = 50
NOISE = np.random.default_rng(0).normal(size=(2, N))
NOISE -= NOISE.mean(1, keepdims=True)
BUILD = ("digits", "ddpm", "base", "ancestral", 20, METRIC)
Build = Callable[..., Tree]
grown = curves.grown


def spreads(built: Tree) -> dict[tuple[Any, ...], float]:
    return trainings.of_scores(built.folder, collect(built.folder, built.experiment)["scores"])


def test_it_is_what_the_noise_that_is_not_shared_leaves(tree: Build) -> None:
    built = tree(seeds=(0, 1)).complete()
    for seed, value in enumerate((4.0, 5.0)):
        scored(built, "ddpm", seed, Estimate(value, 3 * NOISE[0] + NOISE[1] * (1 - 2 * seed)))
        scored(built, "other", seed, Estimate(value, 30 * NOISE[seed]))
    of_difference = 4 * (NOISE[1] ** 2).sum() / (N * (N - 1))  # se^2: what is shared cancels
    found = spreads(built)
    assert found[BUILD] == pytest.approx((0.5 - of_difference / 2) ** 0.5, rel=1e-6)
    assert found["digits", "other", "base", "ancestral", 20, METRIC] == 0
    tables.run(built.folder, built.experiment)
    lines = (built.folder / "tables/scores.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| dataset")).split(" | ")
    assert head[head.index("sd") + 1] == trainings.COLUMN
    assert f"| {found[BUILD]:.4g} |" in next(line for line in lines if "| ddpm |" in line)
    other = next(line for line in lines if "| other |" in line).split(" | ")
    assert other[head.index(trainings.COLUMN)] == "0"  # why stands once, above the table
    assert "\n".join(lines).count("estimated at or below zero") == 1
    report.run(built.folder, built.experiment)
    page = (built.folder / "report.html").read_text()
    assert page.count("estimated at or below zero") == 1
    assert '<td class="number">0</td>' in page


def test_the_error_over_samples_stands_beside_the_spread_over_seeds(tree: Build) -> None:
    built = tree(seeds=(0, 1)).complete()
    for seed, value in enumerate((4.0, 4.1)):
        scored(built, "ddpm", seed, Estimate(value, (20 + 40 * seed) * NOISE[0]))
    of_one = Estimate(0, NOISE[0]).se
    tables.run(built.folder, built.experiment)
    lines = [line.split(" | ") for line in (built.folder / "tables/scores.md").read_text().splitlines()]
    head = next(line for line in lines if line[0] == "| dataset")
    row = next(line for line in lines if "ddpm" in line and METRIC in line)
    assert float(row[head.index("se")]) == pytest.approx(40 * of_one, rel=1e-3)
    report.run(built.folder, built.experiment)
    assert f">{40 * of_one:.4g}<" in (built.folder / "report.html").read_text()


def test_of_a_single_training_there_is_none(tree: Build) -> None:
    built = tree(seeds=(0,)).complete()
    scored(built, "ddpm", 0, Estimate(4.0, NOISE[0]))
    assert spreads(built) == {}
    tables.run(built.folder, built.experiment)
    assert trainings.COLUMN not in (built.folder / "tables/scores.md").read_text()


@pytest.mark.parametrize("harm", ["unequal", "damaged"])
def test_without_influences_that_fit_nothing_is_said(tree: Build, harm: str) -> None:
    built = tree(seeds=(0, 1)).complete()
    for seed in (0, 1):
        scored(built, "ddpm", seed, Estimate(4.0, NOISE[seed][: N - seed * (harm == "unequal")]))
    if harm == "damaged":
        write_text(built.folder / "digits/ddpm/base/s1/ancestral/scores/influences.parquet", "no table")
    assert np.isnan(spreads(built)[BUILD])


def test_every_point_of_a_training_has_its_own(grown: Any) -> None:
    """All images share their influences, scaled by the scores v: half of Var(e_i - e_j) is Var(v) var(NOISE) / N."""
    built = grown()
    for seed in (0, 1):
        curves.climb(built, "ddpm/paper", seed, [8.0, 4.0 + 2 * seed], [10.0, 20.0])
    found = progress.spreads(built.folder, built.experiment, built.tables)
    key = ("digits", "ddpm", "paper", "ancestral", 100, curves.METRIC)
    left = 1 - (curves.NOISE**2).sum() / (N * (N - 1))
    assert found == {(*key, 95): 0.0, (*key, 190): pytest.approx((2 * left) ** 0.5, rel=1e-6)}
    shown = progress.text(built.folder, built.experiment, built.tables)
    assert f"| {found[(*key, 190)]:.4g} |" in shown
    head, _, first, *_ = [line.split(" | ") for line in shown.splitlines() if line.startswith("|")]
    assert first[head.index(trainings.COLUMN)] == "0"
    one = grown(seeds=(0,))
    curves.climb(one, "ddpm/paper", 0, [8.0, 4.0], [10.0, 20.0])
    assert trainings.COLUMN not in progress.text(one.folder, one.experiment, one.tables)
