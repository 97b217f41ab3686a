"""The exact stage: its record obeys the identities that the theory rests on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.analytic import curves, exact
from pipeline_lib.analytic.problems import Study
from pipeline_lib.records.tables import EXACT, read
from tests.analytic.test_problems import problem


@pytest.mark.parametrize("path", ["vp", "edm"])
def test_the_record_holds_every_step_and_the_chain_rule(path: str, tmp_path: Path) -> None:
    one = problem(path, settings={"off": {"error": {"bias": 0.1}}, "large": {"variance": "fixed-large"}})
    curves.run({"problem": one.model_dump(mode="json"), "seed": 0}, {}, tmp_path / "exact.parquet")
    rows = read(tmp_path / "exact.parquet", EXACT)
    for _, curve in rows.groupby("setting"):
        assert list(curve["step"]) == list(range(21))
        assert curve["t"].is_monotonic_decreasing
        assert curve["kl"].iloc[0] > 0  # the error of the prior is reported, not set to zero
        steps = curve.iloc[1:]
        assert np.allclose(steps["before"], curve["kl"].iloc[:-1])
        finite = steps[np.isfinite(steps["modular_p_p"])]
        told = finite["before"] + finite["modular_p_p"] - finite["gap"]
        assert np.allclose(finite["kl"], told, rtol=1e-6, atol=1e-9)
        assert np.allclose(steps["delta"], steps["spread_gap"] ** 2)
    infinite = rows[np.isinf(rows["modular_p_p"])]
    assert list(infinite["setting"]) == ["large"]  # its last step alone has no variance
    assert list(infinite["step"]) == [20]


def test_every_column_is_what_it_says() -> None:
    """Each column computed here once more from the laws themselves, on a chain where no two of them agree."""
    one = problem(settings={"off": {"variance": "fixed-large", "error": {"bias": 0.2, "scale": 0.9}}})
    study = Study(one, 0)
    links = study.links(one.settings["off"])
    row = list(curves.rows(study, one.settings["off"]))[15]
    link, unit = links[14], exact.Normal(torch.zeros(2).double(), torch.eye(2).double())
    chain, single = list(exact.deviations(study.data, links))[14]
    eps_p, eps_q = exact.eps_law(link, link.p_t), exact.eps_law(link, link.q_t)
    squared = torch.distributions.MultivariateNormal(link.q_u.mean, link.q_u.covariance)
    pairs = squared.sample((2, 40_000))
    scale = float((pairs[0] - pairs[1]).square().sum(1).mean().sqrt())
    total = torch.eye(2).double()
    for each in links[:15]:
        total = each.m @ total
    told = {
        "kl": exact.kl(link.p_u, link.q_u),
        "before": exact.kl(link.p_t, link.q_t),
        "modular_p_p": exact.modular_error(link, "p||q", "p"),
        "modular_p_q": exact.modular_error(link, "p||q", "q"),
        "modular_q_p": exact.modular_error(link, "q||p", "p"),
        "modular_q_q": exact.modular_error(link, "q||p", "q"),
        "spread_gap": exact.spread_gap(chain, link.step.s_next),
        "spread_gap_step": exact.spread_gap(single, link.step.s_next),
        "eps_norm_sampling": exact.rms(eps_p),
        "eps_norm_training": exact.rms(eps_q),
        "eps_kl": exact.kl(eps_p, unit) / 2,
        "amplification": exact.stretch(link.m, link.q_t, link.q_u),
        "carried": exact.stretch(total, links[0].q_t, link.q_u),
        "entropy": exact.entropy(link.p_u),
    }
    assert {name: row[name] for name in told} == pytest.approx(told)
    assert len({round(value, 9) for value in told.values()}) == len(told)  # so that no two can be swapped unseen
    assert row["length_scale"] == pytest.approx(scale, rel=0.02)


def test_stretch_is_measured_in_the_units_of_each_end() -> None:
    before, after = (exact.Normal(torch.zeros(1).double(), v * torch.eye(1).double()) for v in (4.0, 0.25))
    assert exact.stretch(0.5 * torch.eye(1).double(), before, after) == pytest.approx(0.5 * 2 / 0.5)


def test_a_contracting_chain_keeps_less_of_an_error_of_its_start() -> None:
    """The negative control against the perfect chain at the same place."""
    settings = {"perfect": {}, "contracting": {"error": {"pull": 0.3}}}
    one = problem(settings=settings)
    left = {name: list(curves.rows(Study(one, 0), one.settings[name]))[-1]["carried"] for name in settings}
    assert left["contracting"] < 0.5 * left["perfect"]
