"""Tables hold what was measured, say what is missing, and are the same bytes twice."""

import pandas as pd
import pytest

from pipeline_lib.records.tables import ERRORS, IDENTITY, SCORES, read, write
from pipeline_lib.reporting import tables
from pipeline_lib.reporting.collect import TABLES, collect
from pipeline_lib.reporting.summaries import device_seconds, error_summary, number, score_summary
from tests.reporting.conftest import SENTENCE, curves


def made(built, name):
    tables.run(built.folder, built.experiment)
    return pd.read_parquet(built.folder / "tables" / f"{name}.parquet")


def test_scores_are_those_of_the_records(tree):
    scores = made(tree().complete(), "scores")
    assert list(scores.columns) == [c.name for c in [*IDENTITY, *SCORES]]
    values = scores.set_index(["method", "seed"])["value"].to_dict()
    assert values.pop(("ddpm", 0)) == 3.0
    assert values.pop(("ddpm", 1)) == 5.0
    assert sorted(values.values()) == [2.0, 4.0, 4.0, 500.0]
    assert scores[scores["method"].isin(["real", "noise"])].set_index("method")["value"].to_dict() == {
        "real": 2.0,
        "noise": 500.0,
    }


def test_curves_are_those_of_the_records(tree):
    errors = made(tree().complete(), "cumulative_error")
    mine = errors[(errors["method"] == "ddpm") & (errors["seed"] == 1)]
    given = pd.DataFrame(curves(3))
    assert mine["mmd2"].tolist() == given["mmd2"].tolist()
    assert mine["step"].tolist() == given["step"].tolist()
    assert set(mine.columns) == {c.name for c in [*IDENTITY, *ERRORS]}


def test_csv_keeps_whole_numbers_whole(tree):
    built = tree().complete()
    made(built, "scores")
    rows = pd.read_csv(built.folder / "tables/scores.csv", dtype=str)
    assert set(rows["seed"].dropna()) == {"0", "1"}
    assert rows["seed"].isna().sum() == 2


def test_costs_stand_beside_their_run(tree):
    costs = made(tree().complete(), "costs")
    assert costs[["method", "seed", "stage", "seconds"]].to_numpy().tolist()[0] == ["ddpm", 0, "train", 12.5]
    assert len(costs) == 4


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cpu", "", None], "seconds of all steps (CPU)"),
        (["A100", "A100 + H200 (shared)"], "GPU-seconds of all steps"),
        (["cpu + A100"], "seconds of all steps (CPU or GPU)"),
        ([""], "GPU-seconds of all steps"),
    ],
)
def test_readers_are_told_whose_seconds(devices, said):
    assert device_seconds(devices, " of all steps") == said
    costs = pd.DataFrame({"preset": "none", "device": devices, "gpu_seconds": 1.0, "gpu_hours": 0.0, "energy_kwh": 0.0})
    shown = tables.cost_text(costs)
    assert f"| {said} |" in shown
    assert ("gpu_hours" in shown) == (devices != ["cpu", "", None])


def test_missing_cells_are_rows(tree):
    built = tree()
    built.dataset()
    built.train("ddpm", 0)
    built.draw("ddpm", 0, 3.0, 2)
    built.fail("digits/other/base/s0/train")
    scores = made(built, "scores").set_index(["method", "seed"])
    assert scores.loc[("ddpm", 0), "status"] == "done"
    assert scores.loc[("ddpm", 1), ["status", "note"]].tolist() == ["pending", "not run yet"]
    assert scores.loc[("other", 0), "status"] == "failed"
    assert scores.loc[("other", 0), "note"] == f"{SENTENCE} (log: digits/other/base/s0/train/log.txt)"


def test_why_scores_are_missing_is_said_once(tree):
    built = tree().complete()
    for place in built.folder.rglob("scores.parquet"):
        rows = read(place, SCORES)
        lost = {**rows.iloc[0].to_dict(), "metric": "FID", "value": None, "status": "pending", "note": "no weights"}
        write(place, [*rows.to_dict("records"), lost], SCORES)
    assert (made(built, "scores")["note"] == "no weights").sum() == 5  # two methods of two seeds, and the floor
    said = (built.folder / "tables/scores.md").read_text()
    assert "| digits | FID | pending | 5 | 4 runs, controls | no weights |" in said
    assert said.count("no weights") == 1


def test_empty_tree_gives_all_tables(tree):
    built = tree()
    assert set(made(built, "scores")["status"]) == {"pending"}
    for name in TABLES:
        for kind in ("parquet", "csv", "md"):
            written = (built.folder / "tables" / f"{name}.{kind}").is_file()
            assert written == (name != "progress")  # no training of this tree keeps snapshots
    assert "No data yet." in (built.folder / "tables/cumulative_error.md").read_text()


def test_same_bytes_twice(tree):
    built = tree().complete()
    tables.run(built.folder, built.experiment)
    first = {p.name: p.read_bytes() for p in (built.folder / "tables").iterdir()}
    tables.run(built.folder, built.experiment)
    assert first == {p.name: p.read_bytes() for p in (built.folder / "tables").iterdir()}
    assert len(first) == 30


def test_score_summary(tree):
    built = tree().complete()
    rows = score_summary(collect(built.folder, built.experiment)["scores"], built.experiment).set_index("method")
    assert rows.loc["ddpm", ["mean", "seeds", "floor", "ceiling"]].tolist() == [4.0, 2, 2.0, 500.0]
    assert rows.loc["ddpm", "sd"] == pytest.approx(2**0.5)
    assert rows.loc["other", "difference"] == 0.0  # mean of 4 - 3 and 4 - 5
    half = 12.7062047  # t_{0.975, 1} = 12.706, sd / sqrt(2) = 1
    assert rows.loc["other", ["difference_low", "difference_high"]].tolist() == pytest.approx([-half, half])


def test_difference_is_paired_over_common_seeds(tree):
    built = tree().complete()
    built.fail("digits/ddpm/base/s0/train")
    rows = score_summary(collect(built.folder, built.experiment)["scores"], built.experiment).set_index("method")
    assert rows.loc["other", "difference"] == -1.0  # seed 1 alone: 4 - 5


def test_error_summary_leaves_out_the_prior(tree):
    built = tree().complete()
    rows = error_summary(collect(built.folder, built.experiment)["cumulative_error"])
    assert set(rows["tested"]) == {4}
    assert rows.groupby("method")["above"].unique().map(list).to_dict() == {"ddpm": [3], "other": [1]}
    assert set(rows["null_quantile"]) == {0.01}
    assert rows["detectable"].tolist() == pytest.approx([0.01 + 0.8416 * 0.001] * 16, rel=1e-4)
    assert rows["last"].tolist() == rows["largest"].tolist() == pytest.approx([0.024] * 16)


def test_curves_of_both_laws_are_summed_up_apart(tree):
    built = tree(seeds=(0,)).complete()
    built.draw("other", 0, 4.0, 1, own=True)
    rows = error_summary(collect(built.folder, built.experiment)["cumulative_error"])
    mine = rows[rows["method"].eq("other")].groupby("law")[["tested", "above"]].max()
    assert mine.loc["marginal"].tolist() == [4, 1]
    assert mine.loc["training-inputs"].tolist() == [3, 0]
    assert set(rows.loc[rows["method"].eq("ddpm"), "law"]) == {"marginal"}


def test_steps_without_a_null_are_not_counted(tree):
    built = tree().complete()
    errors = collect(built.folder, built.experiment)["cumulative_error"]
    errors.loc[errors["step"] == 20, "null_quantile"] = None
    rows = error_summary(errors)
    assert set(rows["tested"]) == {3}
    assert rows.groupby("method")["above"].unique().map(list).to_dict() == {"ddpm": [2], "other": [0]}


def test_what_can_be_found_is_said_of_the_last_step(tree):
    """The null of x_0 is wider than that of noise: a median over the chain would promise too much."""
    built = tree().complete()
    errors = collect(built.folder, built.experiment)["cumulative_error"]
    errors["null_quantile"] = 1e-3 * errors["step"]
    last = errors["step"].max()
    rows = error_summary(errors)
    assert rows["null_quantile"].tolist() == pytest.approx([1e-3 * last] * len(rows))
    assert rows["detectable"].tolist() == pytest.approx([1e-3 * last + 0.8416 * 0.001] * len(rows), rel=1e-4)


def test_markdown_is_a_table():
    text = tables.markdown(pd.DataFrame({"a": ["x|y"], "b": [0.123456], "c": [None]}))
    assert text == "| a | b | c |\n| --- | --- | --- |\n| x\\|y | 0.1235 |  |\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00123456, "0.001235"),
        (25613.7, "25614"),
        (1.5e12, "1.5e+12"),
        (None, ""),
        (float("nan"), ""),
        (7, "7"),
        ("a", "a"),
    ],
)
def test_number(value, shown):
    assert number(value) == shown
