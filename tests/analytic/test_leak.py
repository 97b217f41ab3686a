"""The leak experiment: exact and sampled agree, and a later leak leaves less error."""

from pathlib import Path

import pytest

from pipeline_lib.analytic import leak
from pipeline_lib.config.models import Leak
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
