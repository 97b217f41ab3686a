"""Plant a mistake in a copy of the package and see which test fails there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NOT_THE_COPY = 70
SECONDS = 300  # for the tests of one mutant, which take a few: one that hangs is not killed
COMMAND = f"""
import sys, pytest, pipeline_lib
if not pipeline_lib.__file__.startswith(sys.argv[1]):
    sys.exit({NOT_THE_COPY})
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", *sys.argv[2:]]))
"""


def copy(folder: Path, source: Path = ROOT) -> None:
    """The package, its tests without the mutants, and the pages that tests compare with the code."""
    ignore = shutil.ignore_patterns("__pycache__", "mutants")
    for name in ("pipeline_lib", "tests", "docs/methods"):
        shutil.copytree(source / name, folder / name, ignore=ignore)
    shutil.copy(source / "pyproject.toml", folder)


def plant(mutant: Mutant, folder: Path) -> None:
    """Put the mistake into the copy."""
    path = folder / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: its text occurs {text.count(mutant.old)} times"
    path.write_text(text.replace(mutant.old, mutant.new))


def first_failure(folder: Path, tests: tuple[str, ...], seconds: float = SECONDS) -> str | None:
    """The first test that fails on the copy, None where all pass; RuntimeError where they cannot run.

    A test that fails is a kill; an import that fails, or a fixture, is not.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(folder.resolve()), *tests],
        cwd=folder,
        env={**environment, **threads, "PYTHONPATH": str(folder.resolve())},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    failed = re.search(r"^FAILED (tests/\S+?::[^\[\s]+)", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return None
    if done.returncode == 1 and failed:
        return failed.group(1)
    raise RuntimeError(
        f"pytest ended with {done.returncode}, not by a test:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    )


def failure_without_mistake(folder: Path) -> str | None:
    """The first of all these tests that fails on a copy as it is: it would pass for a killer."""
    copy(folder)
    tests = tuple(sorted({test for mutant in MUTANTS for test in mutant.tests}))
    return first_failure(folder, tests, 12 * SECONDS)


def killer(mutant: Mutant, folder: Path, source: Path = ROOT) -> str | None:
    """The test that kills the mutant, planted in a new copy of `source` in `folder`; None where it survives."""
    copy(folder, source)
    plant(mutant, folder)
    return first_failure(folder, mutant.tests)
