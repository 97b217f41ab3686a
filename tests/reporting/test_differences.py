"""Paired differences: nothing against itself, what the influences say, and plain words where there is no pair."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.analytic import exact
from pipeline_lib.diffusion.kernels import gaussian, squared_distances
from pipeline_lib.errors.uncertainty import estimate, labellings, permutation_null
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import ERRORS, INFLUENCES, provenance, read, write
from pipeline_lib.reporting.collect import collect
from pipeline_lib.reporting.summaries import POWER, detectable, difference_summary

CELLS = "digits/{}/base/s{}/ancestral/errors"


def found(built):
    return collect(built.folder, built.experiment)["cumulative_error_difference"]


def test_a_run_that_is_its_own_control_differs_by_nothing(tree):
    built = tree(seeds=(0,)).complete()
    built.experiment["methods"]["ddpm"]["variants"]["base"]["control"] = "ddpm/base"
    rows = found(built).query("method == 'ddpm'")
    assert len(rows) == 2 * 2 * 6
    assert (rows[["difference", "se", "low", "high"]] == 0).all(axis=None)


def test_the_difference_and_its_error_are_those_of_paired_chains(tree):
    """Errors of 0.001 and half of it from the same chains: 0.0005 is left, at every step and in the mean over them."""
    rows = found(tree().complete())
    assert set(rows["method"]) == {"other"}
    assert set(rows["control"]) == {"ddpm/base"}
    assert rows["se"].tolist() == pytest.approx([0.0005] * len(rows))
    one = rows.query("seed == 1 and kernel == 'gaussian' and bandwidth == 'per-t'").set_index("step")
    assert one["of"].tolist() == ["step"] * 5 + ["mean"]
    assert one["difference"].tolist() == pytest.approx([0, 0, -0.02, -0.02, 0, -0.01])  # x_T is not in the mean
    assert (one["high"] - one["low"]).tolist() == pytest.approx([2 * 1.959964 * 0.0005] * 6)
    assert one["t"].tolist()[:5] == [20, 15, 10, 5, 0]
    assert one["mmd2"].iloc[-1] == pytest.approx((0.001 + 0.002 + 0.003 + 0.024) / 4)


def test_the_summary_has_the_mean_and_x_0_and_the_interval_over_seeds(tree):
    rows = found(tree().complete())
    rows.loc[rows["seed"].eq(1) & rows["of"].eq("mean"), ["difference", "low", "high"]] += 0.012
    summary = difference_summary(rows).query("kernel == 'laplace' and bandwidth == 'shared'").set_index("of")
    mean, last = summary.loc["mean over the curve"], summary.loc["x_0"]
    assert mean[["seeds", "below", "above"]].tolist() == [2, 1, 1]
    assert mean["difference"] == pytest.approx(-0.004)
    # two seeds: t of one degree of freedom, standard deviation 0.012 / sqrt(2), standard error 0.006
    assert mean["half_width"] == pytest.approx(12.7062 * 0.006, rel=1e-5)
    assert mean["half_width"] > 10 * (mean["high"] - mean["low"])  # not that of two given networks
    assert mean["high"] - mean["low"] == pytest.approx(2 * 1.959964 * 0.0005)  # of one pair of networks
    assert last[["difference", "below", "above"]].tolist() == pytest.approx([0, 0, 0])


def test_another_grid_gives_a_sentence_and_no_number(tree):
    built = tree().complete()
    path = built.folder / CELLS.format("ddpm", 1) / "errors.parquet"
    rows = read(path)
    write(path, rows.assign(t=2 * rows["t"]), ERRORS, provenance(path))
    table = found(built)
    assert table.query("seed == 0")["difference"].notna().all()
    other = table.query("seed == 1")
    assert other["note"].tolist() == [
        "not paired: its control was measured at other t or noise levels, so no step of one belongs to the other's"
    ]
    assert other["difference"].isna().all()
    assert difference_summary(table)["note"].dropna().tolist() == other["note"].tolist()


def test_steps_without_influences_are_left_out(tree):
    """Where both runs keep them at steps 0, 10 and 20 alone: the mean is one over 10 and 20."""
    built = tree(seeds=(0,)).complete()
    built.experiment["errors"]["paired_times"] = 3
    for method in ("ddpm", "other"):
        path = built.folder / CELLS.format(method, 0) / "influences.parquet"
        rows = read(path)
        write(path, rows[rows["step"] % 10 == 0], INFLUENCES, provenance(path))
    one = found(built).query("kernel == 'gaussian' and bandwidth == 'per-t'")
    assert one["step"].dropna().tolist() == [0, 10, 20]
    assert one["difference"].tolist() == pytest.approx([0, -0.02, 0, -0.01])
    rows = read(path)
    write(path, rows[rows["step"] > 0], INFLUENCES, provenance(path))
    assert found(built)["note"].str.startswith("not paired: errors/influences.parquet").all()


@pytest.mark.parametrize(
    ("kept", "most", "paired"),
    [
        (lambda rows: rows["step"] >= 0, None, True),
        (lambda rows: rows["step"] > 0, None, False),
        (lambda rows: rows["step"] % 10 == 0, 4, False),
        (lambda rows: rows["step"] % 10 == 0, 3, True),
        (lambda rows: rows["kernel"] == "laplace", None, False),
        (lambda rows: (rows["kernel"] == "laplace") & (rows["step"] % 10 == 0), 3, False),
        (lambda rows: rows["step"] >= 0, 9, True),
    ],
)
def test_influences_that_both_runs_lack_are_missed(tree, kept, most, paired):
    """Else a kernel or a step would be gone from the tables without a word."""
    built = tree(seeds=(0,)).complete()
    built.experiment["errors"]["paired_times"] = most
    for method in ("ddpm", "other"):
        path = built.folder / CELLS.format(method, 0) / "influences.parquet"
        rows = read(path)
        write(path, rows[kept(rows)], INFLUENCES, provenance(path))
    rows = found(built)
    assert rows["difference"].notna().any() == paired
    assert rows["note"].str.contains("lacks steps").any() != paired


@pytest.mark.parametrize("content", ["cut short", None])
def test_lost_influences_give_a_sentence_and_no_number(tree, content):
    built = tree(seeds=(0,)).complete()
    path = built.folder / CELLS.format("ddpm", 0) / "influences.parquet"
    path.unlink() if content is None else write_text(path, content)
    assert found(built)["note"].tolist() == [
        "not paired: errors/influences.parquet of the method or its control cannot be read or lacks steps; delete "
        "errors.parquet beside it and run again"
    ]


def test_without_a_control_there_is_no_row(tree):
    built = tree(seeds=(0,)).complete()
    built.experiment["methods"]["other"]["variants"]["base"]["control"] = None
    assert found(built).empty
    assert difference_summary(found(built)).empty


def test_a_detectable_effect_is_found_with_its_power():
    """Gaussian data whose true MMD^2 is what the formula calls detectable: 80 % of tests find it, or a few more."""
    n, d, scale, shift, repeats = 60, 3, 1.7, 0.375, 200
    labels, rows = labellings(n, n, 200, seed=0), []
    for seed in range(repeats):
        rng = torch.Generator().manual_seed(seed)
        x, y = torch.randn(n, d, generator=rng) + shift, torch.randn(n, d, generator=rng)
        k = [gaussian(m, scale) for m in (squared_distances(x), squared_distances(x, y), squared_distances(y))]
        one = estimate(*k)
        quantile = np.quantile(permutation_null(*k, labels), 0.95, method="higher")
        rows.append({"mmd2": one.value, "se": one.se, "null_quantile": quantile})
    table = pd.DataFrame(rows)
    normal = [
        exact.Normal(v * torch.ones(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)) for v in (shift, 0)
    ]
    assert exact.mmd2(*normal, scale) == pytest.approx(detectable(table).median(), rel=0.05)
    assert POWER - 0.08 < (table["mmd2"] > table["null_quantile"]).mean() < POWER + 0.12
