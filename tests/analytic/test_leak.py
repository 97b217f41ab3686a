"""The leak experiment: exact and sampled agree, and a later leak leaves less error."""

from pathlib import Path

import pytest

from pipeline_lib.analytic import exact, leak
from pipeline_lib.analytic.problems import Study
from pipeline_lib.config.models import Leak
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.tables import LEAK, read
from tests.analytic.test_problems import problem


@pytest.mark.parametrize("path", ["vp", "edm"])
def test_estimates_after_the_leak_hold_the_exact_values(path: str, tmp_path: Path) -> None:
    one = problem(path)
    options = Leak(shares=[0.0, 0.5], chains=500, setting={"variance": "fixed-large", "error": {"bias": 0.3}})
    config = {"problem": one.model_dump(mode="json"), "leak": options.model_dump(mode="json"), "seed": 0}
    leak.run(config, {}, tmp_path / "leak.parquet")
    rows = read(tmp_path / "leak.parquet", LEAK)
    known = rows[rows["estimate"].notna()]
    assert set(known["quantity"]) == {"mmd2", "spread-gap", "eps-norm-ratio"}
    far = (known["exact"] - known["estimate"]).abs() / (known["high"] - known["low"])
    assert far.max() < 1.2  # 4.7 standard errors
    assert known["exact"].between(known["low"], known["high"]).mean() > 0.75  # t share their chains
    early, late = (rows[rows["leak"].eq(share) & rows["quantity"].eq("kl")] for share in (0.0, 0.5))
    assert early["step"].min() == 1
    assert late["step"].min() == 11
    assert late["exact"].iloc[0] < early.loc[early["step"] == 11, "exact"].iloc[0]


def test_the_leak_keeps_the_history_of_the_true_chain() -> None:
    """By the leak the true chain has forgotten part of its x_0, so delta_t goes on from there, not from zero."""
    one = problem()
    study, setting = Study(one, 0), one.settings["one"]
    links = leak.chain_of(study, setting, 10)
    whole = study.links(setting, start=exact.marginal(study.data, study.grid.a[0], study.grid.s[0]))
    for ours, theirs in zip(exact.deviations(study.data, links), exact.deviations(study.data, whole), strict=True):
        assert ours[0].covariance.allclose(theirs[0].covariance)  # a perfect model after the leak changes nothing
    for link in links[:10]:
        assert exact.kl(link.p_u, link.q_u) == pytest.approx(0, abs=1e-12)


def test_a_share_that_leaves_no_step_is_refused() -> None:
    one = problem()
    with pytest.raises(BadConfig, match=r"a share of 0.99 leaves no step of 20 to the model"):
        list(leak.rows(Study(one, 0), Leak(shares=[0.99]), 0.99))
