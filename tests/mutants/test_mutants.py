"""Every planted mistake is seen by a test; the table and its page do not rot."""

from pathlib import Path

import pytest

from tests.mutants.page import PAGE, row
from tests.mutants.run import ROOT, failure_without_mistake, killer
from tests.mutants.table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_changes_one_place_and_names_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / test.split("::")[0]).is_file() for test in mutant.tests)


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_the_page_lists_exactly_these_mutants_and_tests_that_exist() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [line[: line.rindex(" `")] for line in lines] == [row(m) for m in MUTANTS]
    for line in lines:
        file, test = line.split("`")[-2].split("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.mutants
def test_the_copy_without_a_mistake_passes(tmp_path: Path) -> None:
    assert failure_without_mistake(tmp_path) is None


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_is_killed(mutant: Mutant, tmp_path: Path) -> None:
    assert killer(mutant, tmp_path) is not None, f"no test of {mutant.tests} sees that {mutant.stands_for}"
