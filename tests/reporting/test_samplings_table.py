"""The table of samplings: differences to the control paired by seed and by chain, and published rows where they fit."""

from typing import Any

import pytest

from pipeline_lib.records.tables import ERRORS, INFLUENCES, TRENDS, write
from pipeline_lib.reporting import samplings
from pipeline_lib.reporting.comparisons import compare
from tests.reporting.compared_tree import Grown, values
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
    assert "published" in section.shown  # 4.06 and others, on other datasets
