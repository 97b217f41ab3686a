"""What the sections make of the records: constants said once, shared results counted once, methods side by side."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config.plan import load
from pipeline_lib.records.files import write_json
from pipeline_lib.records.tables import SCORES, write
from pipeline_lib.reporting import findings, page, plots, report
from pipeline_lib.reporting.collect import collect, first_of_each, jobs
from pipeline_lib.reporting.page import Results
from pipeline_lib.reporting.samplings import drawn
from pipeline_lib.reporting.sections import compared, methods, samples, scores, status
from pipeline_lib.reporting.summaries import score_summary
from tests.reporting.compared_tree import Grown
from tests.reporting.conftest import score


def summarised(rows, experiment):
    return scores.with_score(score_summary(rows, experiment), rows)


def written(tree):
    report.run(tree.folder, tree.experiment)
    return (tree.folder / "report.html").read_text()


def test_what_all_rows_share_is_said_above_the_table():
    assert page.table(pd.DataFrame({"MMD² at x_0": [1.0]})).columns == ["MMD² at x₀"]
    rows = pd.DataFrame({"a_b": ["x", "x"], "c": [1.0, 2.0], "d": [None, None], "e": ["5 ± 1", "5 ± 1"]})
    shown = page.table(rows, numeric=("e",), varies=("e",))
    assert shown.same == {"a b": "x"}
    assert shown.columns == ["c", "e"]
    assert shown.rows == [["1", "5 ± 1"], ["2", "5 ± 1"]]
    assert shown.numeric == {"c", "e"}
    assert page.table(rows[:1]).columns == ["a b", "c", "d", "e"]


def test_a_stored_result_that_two_cells_share_is_counted_once(tree):
    built = tree(seeds=(0,)).complete()
    first, second = (built.folder / f"digits/{m}/base/s0/train" for m in ("ddpm", "other"))
    before = written(built)
    assert re.search(r"2\s+trainings,", before)
    assert "<b>25.0</b>seconds" in before
    (second / "manifest.json").write_bytes((first / "manifest.json").read_bytes())
    after = written(built)
    assert re.search(r"1\s+training \(some of the 2 rows share one\)", after)
    assert "<b>12.5</b>seconds" in after
    once = [job.place for job in first_of_each(built.folder, jobs(built.experiment)) if job.stage == "train"]
    assert once == ["digits/ddpm/base/s0/train"]


@pytest.mark.parametrize("name", ["cross-digits", "everything-digits", "guidance-digits", "latent-digits", "paper"])
def test_every_job_has_a_cell_and_the_page_says_which_it_counts(name, tmp_path):
    """`python -m pipeline_lib status` counts more: what is made of these jobs, and the page itself."""
    experiment = load(Path(__file__).parents[2] / "configs" / f"{name}.yaml").summary()
    results = Results(tmp_path, experiment)
    shown = status.section(results).html
    assert shown.count('<span class="pending">') == len(results.states)
    assert "also counts the jobs that come after them: tables, figures, this page" in " ".join(shown.split())


def test_the_head_of_the_page_says_which_jobs_it_counts(tree):
    built = tree(seeds=(0,)).complete()
    assert "<b>13</b>jobs done before this page</span>" in written(built)


def test_samplings_of_one_run_stand_in_one_row_beside_their_yardsticks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = Grown([0, 1]).complete()
    tree.run("reg/paper", 0, {10: 7.0, 100: 3.0})
    rows = tree.tables["scores"]
    found = scores.matrices(summarised(rows, tree.experiment), tree.experiment)
    assert [m.title for m in found] == ["FD (classifier-digits) on digits"]
    assert found[0].table.columns == ["method", "ancestral, 100 calls", "ancestral, 10 calls"]
    assert ["Regularised (paper)", "3 ± 0", "5 ± 2.8"] in found[0].table.rows
    assert found[0].table.numeric == {"ancestral, 100 calls", "ancestral, 10 calls"}
    assert found[0].yardsticks == "Floor (held-out real images) 2, ceiling (noise) 500."


def test_other_scores_stand_apart_and_a_single_seed_has_its_interval_over_samples(tree):
    built = tree(seeds=(0,)).complete()
    rows = [score(20, 3.0), {**score(20, 0.25), "metric": "recall (classifier-digits)", "low": 0.2, "high": 0.3}]
    write(built.folder / "digits/ddpm/base/s0/ancestral/scores/scores.parquet", rows, SCORES)
    summary = summarised(collect(built.folder, built.experiment)["scores"], built.experiment)
    found = scores.matrices(summary, built.experiment)
    assert {m.title: m.is_frechet for m in found} == {
        "FD (classifier-digits) on digits": True,
        "recall (classifier-digits) on digits": False,
    }
    assert ["DDPM", "0.25 [0.2, 0.3]"] in found[1].table.rows
    assert "Other scores: recall (classifier-digits) on digits" in written(built)


def test_the_reconstruction_stands_where_floor_and_ceiling_are(tree):
    built = tree(seeds=(0,)).complete()
    controls = [{**score(0, value), "control": name} for name, value in YARDSTICKS.items()]
    write(built.folder / "digits/controls/scores.parquet", controls, SCORES)
    rows = collect(built.folder, built.experiment)["scores"]
    summary = summarised(rows, built.experiment)
    assert set(summary["reconstruction"]) == {2.5}
    (matrix,) = scores.matrices(summary, built.experiment)
    assert "reconstruction (these through the autoencoder) 2.5" in matrix.yardsticks
    shown = scores.score_table(rows, summary, built.experiment)
    assert [shown.rows[i][0] for i in sorted(shown.marks)] == [scores.YARDSTICKS[name] for name in YARDSTICKS]


YARDSTICKS = {"floor": 2.0, "reconstruction": 2.5, "ceiling": 500.0}


def test_protocol_is_in_the_scores_table_and_in_a_fold_of_each_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = Grown([0, 1]).complete()
    tree.run("reg/paper", 0, 2.0, samples=50)
    results = Results(tree.folder, tree.experiment)
    summary = summarised(results.tables["scores"], tree.experiment)
    shown = scores.score_table(results.tables["scores"], summary, tree.experiment)
    assert shown.same["extractor"] == "classifier-digits"
    assert shown.same["reference split"] == "train"
    row = next(row for row in shown.rows if row[0] == "Regularised (paper)")
    assert row[shown.columns.index("samples")] == "50, 100"  # seeds that were scored in two ways
    table1 = next(s for s in results.compared if s.name == "table1")
    ways = compared.protocol_table(table1.rows, results)
    assert ways.same["extractor"] == "classifier-digits"
    assert ways.same["drawn"].startswith("ancestral")
    assert {row[ways.columns.index("samples")] for row in ways.rows} == {"100", "50, 100"}


def test_what_stands_beneath_two_comparisons_is_said_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = Grown([0]).complete()
    results = Results(tree.folder, tree.experiment)
    one = replace(results.compared[0], beneath=["FID on digits: pending."])
    results.compared = [one, replace(one, name="more", beneath=["FID on digits: pending.", "Only here."])]
    shown = compared.section(results).html
    assert [shown.count(text) for text in ("FID on digits: pending.", "Only here.")] == [1, 1]


def test_sampling_is_told_with_its_corrections(tree):
    sampling = tree().experiment["samplings"]["ancestral"]
    assert drawn(sampling).endswith("spacing uniform, no corrections")
    sampling["corrections"] = [{"name": "epsilon-scaling", "b": 1.01}]
    assert drawn(sampling).endswith("epsilon-scaling (b 1.01), spacing uniform")


def test_findings_are_few_sentences_and_a_row_for_each_method(tree):
    built = tree().complete()
    tables = collect(built.folder, built.experiment)
    found = findings.overview(tables, built.experiment).set_index("method")
    assert found.loc["ddpm", ["curves", "grows", "pairs"]].tolist() == [4, 4, 0]
    assert found.loc["other", ["below", "above", "pairs"]].tolist() == [4, 0, 4]
    assert found.loc["other", "difference"] == pytest.approx(-0.01)
    assert found.loc["ddpm", "above_null"] == 0.75
    summary = score_summary(tables["scores"], built.experiment)
    said = list(findings.important(found.reset_index(), summary, {}, built.experiment))
    growth, paired, distance = said
    assert growth == "The error grows along the chain in every curve of DDPM, Other."
    assert paired.endswith("over the curve is lower in every curve for Other.")
    assert distance.startswith("FD (classifier-digits) less that of the control, over training seeds")
    assert distance.endswith("is not told apart in 1 of 1 cells.")
    few = found.reset_index().assign(nfe=5, grows=0)
    growth, paired, _ = findings.important(pd.concat([found.reset_index(), few]), summary, {}, built.experiment)
    where = "(at the most network calls; at fewer: the table below)"
    assert growth == f"The error grows along the chain {where} in every curve of DDPM, Other."
    assert paired.endswith("(at the most network calls) is lower in every curve for Other.")
    two = built.experiment | {"samplings": {"ancestral": {}, "few": {}}}
    growth, paired, _ = findings.important(found.reset_index(), summary, {}, two)
    assert growth == "The error grows along the chain (sampling ancestral) in every curve of DDPM, Other."
    assert "over the curve (sampling ancestral) is lower" in paired


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [((-1.91, 0.247), "not told apart in 1 of 1 cells"), ((-1.4, -0.3), "lower for Other"), (None, "not told apart")],
)
def test_a_score_is_lower_where_the_intervals_over_seeds_and_over_samples_both_say_so(tree, samples, verdict):
    """Two seeds agree by chance: -0.83 [-0.871, -0.791]."""
    built = tree().complete()
    tables = collect(built.folder, built.experiment)
    summary = score_summary(tables["scores"], built.experiment)
    summary.loc[summary["method"].eq("other"), ["difference_low", "difference_high"]] = (-0.871, -0.791)
    key = ("digits", "other", "base", "ancestral", 20, "FD (classifier-digits)")
    known = {key: SimpleNamespace(low=samples[0], high=samples[1])} if samples else {}
    said = list(findings.important(findings.overview(tables, built.experiment), summary, known, built.experiment))
    assert f"over samples alike, is {verdict}" in said[-1]


def test_points_of_grids_are_folded_away(tree):
    built = tree(seeds=(0,)).complete()
    built.experiment["methods"]["other"]["variants"]["base"]["family"] = "grid"
    tables = collect(built.folder, built.experiment)
    found = findings.overview(tables, built.experiment)
    assert found.set_index("method")["grid"].to_dict() == {"ddpm": False, "other": True}
    said = findings.important(found, score_summary(tables["scores"], built.experiment), {}, built.experiment)
    assert not any("Other" in text for text in said)
    assert "1 row of points of grids" in written(built)


def test_curves_of_a_plot_are_means_over_seeds_with_clean_data_at_no_number(tree):
    built = tree().complete()
    tables = collect(built.folder, built.experiment)
    tables["cumulative_error"].loc[tables["cumulative_error"]["seed"].eq(1), "mmd2"] += 0.002
    plot = plots.error_plot(tables, built.experiment)
    of = ["MMD²", "digits", "ancestral, 20 calls", "laplace", "shared"]
    curve = next(c for c in plot["curves"] if c["of"] == of and c["who"] == "DDPM")
    assert curve["x"] == [-10, -5, 0, 5, None]
    assert curve["y"] == [0.001, 0.002, 0.023, 0.024, 0.025]
    assert curve["null"] == [0.01] * 5
    difference = next(c for c in plot["curves"] if c["of"] == [plots.DIFFERENCE, *of[1:]])
    assert difference["who"] == "Other"
    assert difference["y"] == pytest.approx([0.0, 0.0, -0.02, -0.02, 0.0])
    assert difference["x"] == curve["x"]


def test_a_name_cannot_end_the_script_of_a_plot():
    text = str(plots.script({"who": "</script><b>"}))
    assert "<" not in text
    assert json.loads(text) == {"who": "</script><b>"}


def test_samples_of_all_methods_are_the_same_chains(tree):
    built = tree(seeds=(0,)).complete()
    (sheet,) = samples.sheets(Results(built.folder, built.experiment))
    assert [c.label for c in sheet.columns] == ["DDPM", "Other"]
    assert sheet.real.startswith("data:image/png")
    assert sheet.lost == []


def test_samples_that_are_gone_are_named(tree):
    built = tree(seeds=(0,)).complete()
    store = page.Path(samples.manifest(built.folder, "digits/other/base/s0/ancestral/sample").folder)
    (store / "nfe0020/images.npy").unlink()
    (sheet,) = samples.sheets(Results(built.folder, built.experiment))
    assert ([c.label for c in sheet.columns], sheet.lost) == (["DDPM"], ["Other"])


def test_a_column_of_samples_is_made_of_the_first_chains(tmp_path):
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    np.save(tmp_path / "images.npy", images)
    pictures = page.Pictures(tmp_path)
    first = pictures.column(tmp_path / "images.npy", 2)
    assert first != pictures.column(tmp_path / "images.npy", 3)
    assert page.Pictures(tmp_path, left=3).column(tmp_path / "images.npy", 2) == ""


def test_a_large_figure_is_shown_as_png_where_there_is_one(tmp_path):
    (tmp_path / "figures").mkdir()
    for name, size in (("small", 10), ("large", page.LARGEST_SVG + 1), ("lone", page.LARGEST_SVG + 1)):
        (tmp_path / f"figures/{name}.svg").write_text(" " * size)
    for name in ("small", "large"):
        (tmp_path / f"figures/{name}.png").write_text("picture")
    links = [page.Pictures(tmp_path).figure(name)["link"] for name in ("small", "large", "lone", "none")]
    assert links == ["figures/small.svg", "figures/large.png", "figures/lone.svg", ""]


def test_a_method_shows_what_it_changes_from_its_control(tree):
    built = tree(seeds=(0,)).complete()
    for method, lr in (("ddpm", 0.1), ("other", 0.2)):
        config = {"config": {"objective": {"name": "ddpm"}, "training": {"lr": lr}, "seed": 0}, "runtime": {}}
        write_json(built.folder / f"digits/{method}/base/s0/train/config.json", config)
    ddpm, other = methods.methods(Results(built.folder, built.experiment))
    assert ddpm.changed.rows == []
    assert (other.changed.columns, other.changed.rows) == (
        ["variant", "key", "value", "control's"],
        [["base", "training.lr", "0.2", "0.1"]],
    )
    assert ["training.lr", "0.2"] in other.options.rows
    assert other.curves == ["Other", "DDPM"]
    assert other.says.startswith("DDPM")
    assert [g["text"] for g in other.grids] == ["base on digits, ancestral, 20 calls, seed 0"]
    assert 'id="method-other"' in written(built)
