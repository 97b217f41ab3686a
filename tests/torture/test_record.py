"""The kill schedule: its last long run is on record, and it still runs."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from pipeline_lib.records import tables
from tests.torture.kills import BETWEEN_RENAMES, IN_WRITE
from tests.workflow.conftest import ROOT


def checked(path: Path) -> pd.DataFrame:
    """A record of kills of which none has changed what a training ends with."""
    rows = tables.read(path, tables.FAULTS)
    assert rows.bit_equal.all()
    assert (rows.resumed <= rows.step).all()
    assert set(rows.exit_code[rows.kind != "SIGTERM"]) <= {-9}
    assert set(rows.exit_code[rows.kind == "SIGTERM"]) <= {75, 0}
    return rows


def test_a_hundred_kills_have_changed_nothing() -> None:
    rows = checked(ROOT / "results/reference/faults.parquet")
    assert len(rows) >= 100
    assert set(rows.kind) == {"SIGTERM", "SIGKILL", IN_WRITE, BETWEEN_RENAMES}


def test_some_kills_now(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.torture", "4", str(tmp_path / "faults.parquet")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(checked(tmp_path / "faults.parquet")) == 4
