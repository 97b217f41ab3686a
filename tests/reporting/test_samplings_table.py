"""The table of samplings: differences to the control paired by seed and by chain, and published rows where they fit."""

from math import sqrt
from typing import Any

import numpy as np
import pytest

from pipeline_lib.records.tables import ERRORS, INFLUENCES, SCORE_INFLUENCES, TRENDS, write
from pipeline_lib.reporting import samplings
from pipeline_lib.reporting.comparisons import compare
from tests.reporting.compared_tree import METRIC, Grown, values
from tests.reporting.conftest import curves, influences, trends

SCALING = [{"name": "epsilon-scaling", "b": 1.01}]
DDIM: dict[str, Any] = {"sampler": {"name": "ddim", "eta": 0.2}, "images": 100}
SAMPLING = {
    "ddim": {**DDIM, "nfe": [10, 20]},
    "scaled": {
        **DDIM,
        "nfe": [5, 20],
        "corrections": SCALING,
        "control": "ddim",
        "published": {"ddpm/paper": "ning2024/ddim-es"},
    },
}


@pytest.fixture
def tree() -> Grown:
    """DDPM alone in both samplings: scaled scores 1 less on seed 0 and 2 less on seed 1, and half the MMD."""
    ddpm = {"ddpm": values([0])["methods"]["ddpm"]}
    table = {"table1": {"title": "Methods", "rows": ["ddpm/paper"]}}
    built = Grown([0, 1], methods=ddpm, sampling=SAMPLING, sweeps={}, comparisons=table)
    for seed in (0, 1):
        built.run("ddpm/paper", seed, 4.0)
        for sampling, scale in (("ddim", 1.0), ("scaled", 0.5)):
            place, nfes = f"digits/ddpm/paper/s{seed}/{sampling}", SAMPLING[sampling]["nfe"]
            built.score(place, dict.fromkeys(nfes, 4.0 if sampling == "ddim" else 3.0 - seed))
            rows = [{**row, "nfe": nfe, "mmd2": scale * row["mmd2"]} for nfe in nfes for row in curves(2)]
            slopes = [{**row, "nfe": nfe} for nfe in nfes for row in trends()]
            shares = [{**row, "nfe": nfe} for nfe in nfes for row in influences(scale)]
            for name, found, columns in (("errors", rows, ERRORS), ("trends", slopes, TRENDS)):
                write(built.folder / place / f"errors/{name}.parquet", found, columns)
            write(built.folder / place / "errors/influences.parquet", shares, INFLUENCES)
    return built


def test_differences_are_paired_by_seed_and_by_chain(tree: Grown) -> None:
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    assert list(rows.index) == [("ddim", 20), ("ddim", 10), ("scaled", 20), ("scaled", 5)]
    one = rows.loc[("scaled", 20)]
    assert (one["control"], one["pairs"], one["difference"]) == ("ddim", 2, -1.5)
    assert one["half_width"] == pytest.approx(12.7062 * 0.5, rel=1e-5)  # t of one degree of freedom, sd 1 / sqrt(2)
    assert one["mmd2_difference"] == pytest.approx(-rows.loc[("ddim", 20), "mmd2"] / 2)
    assert one["mmd2_high"] - one["mmd2_low"] == pytest.approx(2 * 1.959964 * 0.0005)  # half of each chain's influence
    lone = rows.loc[("scaled", 5)]
    assert lone["note"] == samplings.OTHER_CALLS
    assert lone[["difference", "mmd2_difference"]].isna().all()


def test_a_published_row_is_that_of_the_sampling_and_of_a_variant_in_its_first_sampling_alone(tree: Grown) -> None:
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    assert rows.loc[("ddim", 20), "source"].startswith("Li and van der Schaar (2024), Table 1")
    assert rows.loc[("scaled", 20), "source"].startswith("Ning et al. (2024), DDIM")
    assert rows.loc[("scaled", 20), "verdict"] == "not comparable: dataset"
    tree.experiment["samplings"]["scaled"]["published"] = {}
    table = compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
    assert table[table["sampler"].eq("scaled")]["source"].isna().all()


def test_what_a_sampling_is_stands_beside_its_name(tree: Grown) -> None:
    section = samplings.section(tree.folder, tree.experiment, tree.tables)
    assert set(section.shown["sampler and corrections"]) == {
        "ddim (eta 0.2)",
        "ddim (eta 0.2), epsilon-scaling (b 1.01)",
    }
    assert "published" not in section.shown  # all numbers are of other datasets: said once, not in every row
    (said,) = section.beneath
    assert said.startswith("Published in other settings (not comparable: dataset): DDPM cifar10 FID ")


def scored(tree: Grown, sampling: str, seed: int, fd: float, influence: np.ndarray) -> None:
    """A score at 20 calls, with the influence (n,) of its images."""
    place = f"digits/ddpm/paper/s{seed}/{sampling}"
    tree.score(place, {20: fd}, se=0.1)
    shares = [{"nfe": 20, "metric": METRIC, "images": influence.astype(np.float32)}]
    write(tree.folder / place / "scores/influences.parquet", shares, SCORE_INFLUENCES)


def test_the_interval_over_samples_stands_beside_that_over_seeds(tree: Grown) -> None:
    """Influences of alternating sign: their difference is 1 or -1, so its se is 1 / sqrt(n - 1), as in each seed."""
    sign = np.where(np.arange(101) % 2, 1.0, -1.0)
    for seed in (0, 1):
        scored(tree, "ddim", seed, 4.0, 3 * sign)
        scored(tree, "scaled", seed, 3.0 - seed, 2 * sign)
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    one, half = rows.loc[("scaled", 20)], 1.959964 * sqrt(1 / 100)
    assert one["difference"] == -1.5
    ends = [one["difference_sample_low"], one["difference_sample_high"]]
    assert ends == pytest.approx([-1.5 - half, -1.5 + half], rel=1e-4)
    assert one["high"] - one["low"] > 10 * half  # of the seeds
    shown = samplings.section(tree.folder, tree.experiment, tree.tables).shown
    assert shown.loc[shown["sampler"].eq("scaled"), "difference"].iloc[0] == "-1.5 [-7.85, 4.85], samples [-1.7, -1.3]"
    (tree.folder / "digits/ddpm/paper/s1/ddim/scores/influences.parquet").unlink()
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    assert np.isnan(rows.loc[("scaled", 20), "difference_sample_low"])  # of one seed, beside a difference of two


def test_a_note_says_at_how_many_steps_variance_downscaling_has_too_little_noise(tree: Grown) -> None:
    for seed, share in ((0, 0.25), (1, 0.5)):
        cells = [{"nfe": 20, "infeasible": share}, {"nfe": 5, "infeasible": 0.0}]
        tree._manifest(f"digits/ddpm/paper/s{seed}/scaled/sample", {"cells": cells})
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    said = "variance downscaling is infeasible at {} % of the noisy steps, which add no noise"
    assert rows.loc[("scaled", 20), "note"] == said.format("25 to 50")
    assert rows.loc[("scaled", 5), "note"] == f"{samplings.OTHER_CALLS}; {said.format('0')}"
    assert rows.loc[("ddim", 20), "note"] == ""


def test_what_is_not_scored_has_its_curve_and_no_row_in_a_comparison(tree: Grown) -> None:
    tree.experiment["samplings"]["ddim"]["scored"] = False
    for seed in (0, 1):
        (tree.folder / f"digits/ddpm/paper/s{seed}/ddim/scores/scores.parquet").unlink()
    assert set(tree.tables["scores"]["sampler"].dropna()) == {"scaled"}
    rows = samplings.measure(tree.folder, tree.experiment, tree.tables).set_index(["sampler", "nfe"])
    one = rows.loc[("ddim", 20)]
    assert one["note"] == samplings.NOT_SCORED
    assert np.isnan(one["mean"])
    assert one["mmd2"] > 0
    table = compare(tree.folder, tree.experiment, tree.tables, [["ddpm", "paper"]])
    assert set(table["sampler"]) == {"scaled"}
    assert table["source"].str.startswith("Ning et al. (2024), DDIM").all()  # its own row, before that of the variant
