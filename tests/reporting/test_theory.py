"""The verdicts on the papers' claims: each can hold and can fail; tables and figures follow from the records."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.config.models import Imperfection, parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.records.tables import EXACT, THEORY, read
from pipeline_lib.reporting import theory

EXPERIMENT = {
    "analytic": {
        "problems": {
            "one": {"settings": {"chain": {"variance": "oracle", "error": Imperfection().model_dump(mode="json")}}}
        }
    }
}


def curve(**changes: list[float]) -> pd.DataFrame:
    """Three places of a chain on which every claim holds, but for what `changes` says."""
    values = {
        "step": [0, 1, 2],
        "kl": [0.1, 0.1, 0.1],
        "before": [np.nan, 0.1, 0.1],
        **{reading: [np.nan, 0.0, 0.0] for reading in theory.READINGS},
        "gap": [np.nan, 0.0, 0.0],
        "mmd2": [0.1, 0.1, 0.1],
        "spread_gap": [np.nan, 0.1, 0.1],
        "spread_gap_step": [np.nan, 0.1, 0.1],
        "eps_kl": [np.nan, 0.0, 0.0],
        "amplification": [np.nan, 1.0, 0.5],
        "entropy": [2.0, 1.0, 1.0],
    }
    return pd.DataFrame({**values, **changes, "problem": "one", "setting": "chain"})


def verdicts(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    return {(row["claim"], row["reading"]): row["verdict"] for row in theory.claims(rows, EXPERIMENT)}


def test_every_claim_holds_where_it_does() -> None:
    assert set(verdicts(curve()).values()) == {"holds"}


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"kl": [0.1, 0.2, 0.1]}, "an error-free denoiser gives p_theta(x_t) = q(x_t)"),
        ({"modular_p_p": [np.nan, 0.0, 0.05]}, "E_t >= E_{t+1} + E_t^mod"),
        ({"kl": [0.1, 0.2, 0.3]}, "E_t <= E_{t+1} + E_t^mod"),
        ({"modular_p_p": [np.nan, 0.0, 0.05]}, "mu_t >= 1"),
        ({"modular_p_p": [np.nan, 0.0, 0.2]}, "mu_t >= 0"),
        ({"mmd2": [0.1, 0.1, 0.5]}, "E_t >= MMD^2 / 4"),
        ({"mmd2": [0.1, 0.01, 0.1]}, "E_t <= MMD^2"),
        ({"eps_kl": [np.nan, 0.02, 0.0]}, "eps_theta(x_t) ~ N(0, I) while sampling"),
        ({"entropy": [2.0, 1.0, 1.1]}, "entropy of p_theta(x_t) never rises"),
        ({"amplification": [np.nan, 1.1, 0.5]}, "input errors shrink"),
        ({"spread_gap": [np.nan, 0.1, -0.1]}, "sampling spreads wider than q(x_t | x_0)"),
    ],
)
def test_every_claim_can_fail(changes: dict[str, list[float]], claim: str) -> None:
    assert "fails" in [v for (name, _), v in verdicts(curve(**changes)).items() if name == claim]


def test_readings_of_the_modular_error_are_told_apart() -> None:
    found = verdicts(curve(modular_q_q=[np.nan, 0.05, 0.05]))
    told = {reading: v for (claim, reading), v in found.items() if claim == theory.SUPERADDITIVE}
    plain = {"KL(p||q) over p": "holds", "KL(p||q) over q": "holds", "KL(q||p) over p": "holds"}
    plain["KL(q||p) over q"] = "fails"
    assert told == plain | {f"{reading}, where its assumptions hold": v for reading, v in plain.items()}


def test_the_theorem_is_also_judged_where_its_assumptions_hold_alone() -> None:
    """The step on which it fails is one where the network's eps is not N(0, I), or the entropy rises."""
    for broken in ({"eps_kl": [np.nan, 0.0, 0.5]}, {"entropy": [2.0, 1.0, 1.5]}):
        found = verdicts(curve(modular_p_p=[np.nan, 0.0, 0.05], **broken))
        assert found[theory.SUPERADDITIVE, "KL(p||q) over p"] == "fails"
        assert found[theory.SUPERADDITIVE, "KL(p||q) over p, where its assumptions hold"] == "holds"


def test_worst_is_the_chain_that_misses_by_most() -> None:
    small, large = curve(modular_p_p=[np.nan, 0.05, 0.05]), curve(modular_p_p=[np.nan, 0.0, 0.5])
    rows = [row for one in (small, large, small) for row in theory.claims(one, EXPERIMENT)]
    line = theory.summary(pd.DataFrame(rows)).set_index(["claim", "reading"]).loc[theory.SUPERADDITIVE, :]
    assert line.loc["KL(p||q) over p", "worst"].startswith("-0.5 ")
    assert line.loc["KL(p||q) over p", "holds"] == "0 of 3"


def test_what_is_infinite_or_below_the_floor_is_not_judged() -> None:
    """The last step of a fixed variance has an infinite modular error, and a ratio of rounding errors says nothing."""
    rows = list(theory.claims(curve(modular_p_p=[np.nan, 0.0, np.inf]), EXPERIMENT))
    steps = {row["steps"] for row in rows if row["claim"].startswith("E_t >= E_{t+1}")}
    assert steps == {1, 2}
    tiny = curve(before=[np.nan, 1e-9, 1e-9])
    assert {v for (claim, _), v in verdicts(tiny).items() if claim.startswith("mu_t")} == {"undefined"}


def test_an_imperfect_chain_is_not_held_against_the_proposition() -> None:
    erring = {"variance": "oracle", "error": Imperfection(bias=0.1).model_dump(mode="json")}
    other = {"analytic": {"problems": {"one": {"settings": {"chain": erring}}}}}
    assert not [row for row in theory.claims(curve(), other) if row["claim"].startswith("an error-free")]


SMALL = {
    "experiment": "known",
    "analytic": {
        "problems": {
            "two-pixels": {
                "data": [{"mean": [0.3, -0.2], "covariance": [[0.05, 0.02], [0.02, 0.03]]}],
                "nfe": 10,
                "settings": {"perfect": {}, "large": {"variance": "fixed-large", "error": {"bias": 0.3}}},
            }
        },
        "coverage": {
            "repeats": 20,
            "chains": 20,
            "times": 2,
            "permutations": 19,
            "power_chains": 20,
            "power_repeats": 10,
            "power_bias": [0.1, 2.0],
            "bootstrap_lengths": [1, 2],
        },
        "leak": {"chains": 50, "shares": [0.5]},
        "corrections": {"nfe": [5], "factors": [0.98, 1.0, 1.02]},
    },
}


def test_the_whole_chain_of_stages_ends_in_tables_figures_and_report() -> None:
    plan = Plan(parse_experiment(SMALL))
    plan.write()
    for name in ("exact", "coverage", "leak", "corrections"):
        for record in map(Path, plan.known_answers(name)):
            assert main([name, "--config", str(record.parent / "config.json"), "--output", str(record)]) == 0
    for stage in ("tables", "figures", "report"):
        assert main([stage, "known"]) == 0
    folder = Path("results/known")
    for name in plan.tables:
        assert (folder / f"tables/{name}.md").stat().st_size > 200
    assert not (folder / "tables/scores.parquet").exists()
    found = read(folder / "tables/theory.parquet", THEORY)
    assert set(found["setting"]) == {"perfect", "large", "scaled", "contracting", "estimated"}
    assert read(folder / "tables/exact.parquet", EXACT)["step"].max() == 10
    page = (folder / "report.html").read_text()
    assert "Known answers" in page
    assert "Cumulative error</h2>" not in page
    assert page.count("data:image") == 3
    assert json.loads((folder / "config/experiment.json").read_text())["instances"] == []


def test_missing_records_leave_a_page_that_says_so() -> None:
    Plan(parse_experiment(SMALL)).write()
    for stage in ("tables", "figures", "report"):
        assert main([stage, "known"]) == 0
    assert (
        "not run yet" in Path("results/known/report.html").read_text()
        or "pending" in Path("results/known/report.html").read_text()
    )


def corrected(**kl: float) -> list[dict]:
    """Verdicts on short chains of a perfect and a scaled denoiser, whose errors `kl` changes by name."""
    values = {
        "right": 0.5,
        "none": 1.0,
        "lower": 1.2,
        "exact": 0.5,
        "paper": 0.9,
        "measured": 0.8,
        "infeasible": 0.0,
    } | kl
    cells = [
        ("perfect", "none", np.nan, "right"),
        ("perfect", "epsilon-scaling", 1.02, "right"),
        ("scaled", "none", np.nan, "none"),
        ("scaled", "epsilon-scaling", 0.98, "lower"),
        ("scaled", "epsilon-scaling", 1.02, "exact"),
        ("scaled", "variance-downscaling, paper", np.nan, "paper"),
        ("scaled", "variance-downscaling, measured", np.nan, "measured"),
    ]
    rows = pd.DataFrame(
        [{"setting": s, "correction": c, "factor": f, "kl": values[name]} for s, c, f, name in cells],
    ).assign(problem="one", eta=1.0, nfe=10, infeasible=values["infeasible"])
    perfect, scaled = Imperfection(), Imperfection(scale=1.02)
    errors = {"perfect": perfect.model_dump(mode="json"), "scaled": scaled.model_dump(mode="json")}
    found = theory.correction_claims(rows, {"analytic": {"corrections": {"denoisers": errors}}})
    return [row for row in found if row["setting"] == "scaled"]


def of(rows: list[dict]) -> dict[str, str]:
    return {f"{row['claim'].split()[0]} {row['reading']}": row["verdict"] for row in rows}


def test_claims_on_corrections_hold_and_can_fail() -> None:
    names = ["epsilon ancestral", "some ancestral", "variance paper, ancestral", "variance measured, ancestral"]
    assert of(corrected()) == dict.fromkeys(names, "holds")
    assert of(corrected(right=0.4))[names[0]] == "fails"
    assert of(corrected(exact=1.1, lower=0.5))[names[1]] == "fails"  # only a lambda below 1 helps
    assert of(corrected(paper=1.1))[names[2]] == "fails"
    assert of(corrected(measured=1.1))[names[3]] == "fails"


def test_a_correction_that_is_nowhere_feasible_is_not_judged() -> None:
    assert not [row for row in corrected(infeasible=1.0) if row["claim"].startswith("variance")]
