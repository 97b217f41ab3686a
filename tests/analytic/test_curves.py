"""The exact stage: its record obeys the identities that the theory rests on."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.analytic import curves
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
