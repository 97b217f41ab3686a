"""Methods that are sampled in different ways: each has its own main cell, and no row where it is not sampled."""

from typing import Any

import pandas as pd
import pytest

from pipeline_lib.reporting import before_after, check, differences, figures, findings, report
from pipeline_lib.reporting.comparisons import compare, half_width_note
from pipeline_lib.reporting.summaries import cells, main_rows, score_summary
from tests.reporting.compared_tree import Grown, values
from tests.reporting.conftest import curves, trends

SAMPLING = {
    "ancestral": {"sampler": "ancestral", "nfe": [10, 100], "images": 100, "methods": ["ddpm"]},
    "ddim": {"sampler": "ddim", "nfe": [5, 20], "images": 100},
    "few": {"sampler": "ddim", "nfe": [7], "images": 100, "methods": ["reg"]},
}
PAIRS = (["ddpm", "paper"], ["reg", "paper"])


@pytest.fixture
def tree() -> Grown:
    """DDPM by ancestral and ddim, the regularised by ddim and few."""
    plain: dict[str, Any] = {k: {**v, "variants": {"paper": v["variants"]["paper"]}} for k, v in METHODS.items()}
    checks = [{"metric": "fd", "nfe": 20, "at_most": 2.0}]
    return Grown([0, 1], methods=plain, sampling=SAMPLING, sweeps={}, checks=checks).complete()


METHODS = values([0])["methods"]


def test_rows_stand_where_a_method_is_sampled(tree: Grown) -> None:
    rows = compare(tree.folder, tree.experiment, tree.tables, PAIRS)
    found = list(zip(rows["method"], rows["sampler"], rows["nfe"], strict=True))
    ddpm = [("ddpm", "ancestral", 100), ("ddpm", "ancestral", 10)]
    both = [(method, "ddim", nfe) for nfe in (20, 5) for method in ("ddpm", "reg")]
    assert found == [*ddpm, *both, ("reg", "few", 7)]
    assert set(tree.tables["scores"]["status"]) == {"done"}  # no cell waits for what will not be drawn


def test_a_difference_needs_a_sampling_in_common(tree: Grown) -> None:
    rows = compare(tree.folder, tree.experiment, tree.tables, PAIRS).set_index(["method", "sampler", "nfe"])
    assert rows.loc[("reg", "ddim", 20), "difference"] == pytest.approx(-1.5)
    alone = rows.loc[("reg", "few", 7)]
    assert pd.isna(alone["difference"])
    assert alone["note"] == "the control is not sampled in this way"
    summary = score_summary(tree.tables["scores"], tree.experiment).set_index(["method", "sampler"])
    assert pd.isna(summary.loc[("reg", "few"), "difference"])


def test_the_main_cell_of_a_method_is_its_first_sampling_at_most_calls(tree: Grown) -> None:
    assert cells(tree.experiment, "ddpm")[0] == ("ancestral", 100)
    assert cells(tree.experiment, "reg")[0] == ("ddim", 20)
    rows = compare(tree.folder, tree.experiment, tree.tables, PAIRS)
    assert "with ddim at 20 network calls" in half_width_note(rows, tree.experiment)
    errors = pd.DataFrame(
        [{"method": m, "sampler": s, "bandwidth": "shared"} for m in ("ddpm", "reg") for s in SAMPLING]
    )
    main = main_rows(errors, tree.experiment)
    assert main[["method", "sampler"]].to_numpy().tolist() == [["ddpm", "ancestral"], ["reg", "ddim"]]


def test_checks_ask_for_nothing_that_is_not_sampled(tree: Grown) -> None:
    found = check.verdicts(tree.tables, tree.experiment)
    assert [v.where for v in found] == ["digits, ddpm/paper, ddim, nfe 20", "digits, reg/paper, ddim, nfe 20"]


def test_figures_show_the_main_samplings_together_and_the_others_apart(tree: Grown) -> None:
    shared = [d for d in figures.drawings(tree.experiment) if d.bandwidth == "shared"]
    assert [(d.name, d.samplers) for d in shared] == [
        ("fig2", ("ancestral", "ddim")),
        ("fig2-ddim-shared", ("ddim",)),  # of DDPM it is the second
        ("fig2-few-shared", ("few",)),
    ]


def test_curves_of_a_method_stand_beside_those_of_its_control_in_its_own_sampling(tree: Grown) -> None:
    rows = [
        {
            **row,
            "dataset": "digits",
            "method": m,
            "variant": "paper",
            "seed": 0,
            "preset": "paper",
            "sampler": s,
            "log_snr": 0.0,
            "length_scale": 1.0,
        }
        for m, s in (("ddpm", "ancestral"), ("ddpm", "ddim"), ("reg", "ddim"), ("reg", "few"))
        for row in curves(1)
    ]
    errors = pd.DataFrame(rows)
    lost = pd.DataFrame(differences.differences(tree.folder, tree.experiment, errors)).set_index("sampler")["note"]
    assert lost["few"] == differences.NOT_SAMPLED
    assert lost["ddim"] == differences.NO_INFLUENCES  # which this tree has not
    empty = pd.DataFrame(columns=[*errors.columns, "control", "of", "difference", "note"])
    pairs = list(before_after._pairs(errors, empty, tree.experiment, "laplace"))
    assert [pair.shared[:2] for pair in pairs] == [("digits", "ddim")]
    assert [set(line.rows["sampler"]) for line in pairs[0].lines] == [{"ddim"}, {"ddim"}]
    about = {"dataset": "digits", "variant": "paper", "seed": 0, "sampler": "ddim"}
    tables = {
        "cumulative_error": errors,
        "trends": pd.DataFrame([{**about, "method": "reg", **row} for row in trends()]),
        "cumulative_error_difference": empty,
    }
    said = [r["who"] for r in findings.readings(tables, tree.experiment)]
    assert [who.partition(" on ")[0] for who in said] == ["DDPM", "Regularised"]


def test_the_status_leaves_a_place_empty_where_nothing_is_to_be_done(tree: Grown) -> None:
    report.run(tree.folder, tree.experiment)
    page = (tree.folder / "report.html").read_text()
    assert "only reg" in page
    status = page[page.index('id="status"') :]
    row = next(line for line in status.splitlines() if line.startswith("<tr><td>digits</td><td>Regularised</td>"))
    states = status[status.index(row) :].partition("</tr>")[0]
    assert states.count("–") == 3  # sample, errors, scores of ancestral
