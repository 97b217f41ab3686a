"""docs/mutants.md: which test sees which mistake."""

from collections.abc import Mapping
from pathlib import Path

from tests.mutants.run import ROOT
from tests.mutants.table import MUTANTS, Mutant

PAGE = ROOT / "docs" / "mutants.md"
INTRODUCTION = """# Mutants

A test suite is worth what it can see. A *mutant* is a copy of the package with one mistake planted in it: an index off
by one, a factor lost, two laws exchanged. Most of those below are mistakes that published code for diffusion models
has, or that its users have met. A mutant is *killed* when a test fails on it; one that survives shows a test that is
missing. All of these are killed, by the test in the last column (the first that fails).

    python -m pytest -m mutants -n 2     # plants each mistake, and fails where one survives
    python -m tests.mutants              # the same, and writes this page

They are left out of the usual test run, since each runs tests in a process of its own.

| mutant | what it stands for | file | killed by |
|---|---|---|---|
"""


def row(mutant: Mutant) -> str:
    """The line of a mutant up to the test that kills it; a bar in a cell is escaped."""
    stands_for = mutant.stands_for.replace("|", "\\|")
    return f"| `{mutant.name}` | {stands_for} | `{mutant.file.removeprefix('pipeline_lib/')}` |"


def write(killers: Mapping[str, str], page: Path = PAGE) -> None:
    """The page, from the name of the test that kills each mutant."""
    lines = [f"{row(m)} `{killers[m.name].removeprefix('tests/')}` |\n" for m in MUTANTS]
    page.write_text(INTRODUCTION + "".join(lines))
