"""Queued jobs run a copy of the code; it is made once, and its absence is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline_lib
from pipeline_lib.cluster import code
from pipeline_lib.exits import TryAgain
from tests.workflow.conftest import ROOT

PRINT = "import pipeline_lib; print(pipeline_lib.__file__)"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONSAFEPATH", code.VARIABLE):
        monkeypatch.setenv(name, "")


def test_a_job_imports_the_copy_even_where_the_package_lies_in_its_folder() -> None:
    pinned = code.pin()
    for arguments in (["-c", PRINT], ["-m", "pipeline_lib", "data", "--config", "none", "--output", "none"]):
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if "-c" in arguments:
            assert done.stdout.strip() == str(pinned / "pipeline_lib/__init__.py")
        else:
            assert "the stage configuration none cannot be read" in done.stderr  # past the check


def test_equal_code_is_copied_once_and_changed_code_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = code.pin()
    made = first.stat().st_mtime_ns
    assert code.pin() == first
    assert first.stat().st_mtime_ns == made
    monkeypatch.setattr(pipeline_lib, "__file__", str(first / "pipeline_lib/__init__.py"))
    (first / "pipeline_lib/exits.py").write_text("# edited")
    second = code.pin()
    assert second != first
    assert sorted(p.name for p in second.parent.iterdir()) == sorted({first.name, second.name})


def test_a_job_whose_code_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    code.check()
    monkeypatch.setenv(code.VARIABLE, str(Path("work/code/0123").absolute()))
    with pytest.raises(TryAgain, match=r"is not in .*0123 any more; start Snakemake again"):
        code.check()


def test_the_copy_holds_what_the_package_reads() -> None:
    pinned = code.pin() / "pipeline_lib"
    package = Path(pipeline_lib.__file__).parent
    files = {p.relative_to(package) for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p.relative_to(pinned) for p in pinned.rglob("*") if p.is_file()} == files
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(pinned.parent)
