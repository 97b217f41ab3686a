"""Checks on both sides of their bounds."""

import pytest

from pipeline_lib.reporting import check
from pipeline_lib.reporting.collect import collect


def fd(**bound):
    return {"metric": "fd", "nfe": 20, **bound}


def mmd(**bound):
    return {"metric": "mmd", "nfe": 20, **bound}


# FD over the floor of 2: ddpm (3 and 5) and other (4 and 4) are both 2; steps above: ddpm 3 of 4, other 1 of 4
@pytest.mark.parametrize(
    ("one", "code"),
    [
        (fd(at_most=2.0), 0),
        (fd(at_most=1.99), 1),
        (fd(at_least=2.0), 0),
        (fd(at_least=2.01), 1),
        (mmd(at_least=0.25), 0),
        (mmd(at_least=0.3), 1),
        (mmd(at_most=0.75), 0),
        (mmd(at_most=0.7), 1),
    ],
)
def test_code(tree, one, code, capsys):
    built = tree(checks=(one,)).complete()
    assert check.run(built.folder, built.experiment) == code
    assert ("FAIL" in capsys.readouterr().out) == bool(code)


def test_a_curve_against_training_inputs_is_not_checked(tree):
    """It would halve the share of 1 in 4, or with 0 of 3 pull its median down."""
    built = tree(seeds=(0,), checks=(mmd(at_least=0.25),)).complete()
    built.draw("other", 0, 4.0, 1, own=True)
    found = check.verdicts(collect(built.folder, built.experiment), built.experiment)
    assert [v.value for v in found] == [0.75, 0.25]


def test_one_line_a_check_and_method(tree, capsys):
    built = tree(checks=(fd(at_most=3), mmd(at_least=0.5))).complete()
    check.run(built.folder, built.experiment)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pass  digits, ddpm/base, ancestral, nfe 20: FD (classifier-digits) / floor 2 (at most 3)"
    assert [line[:4] for line in lines] == ["pass", "pass", "pass", "FAIL"]


def test_a_failed_seed_fails_its_check(tree):
    built = tree(checks=(fd(at_most=99),)).complete()
    built.fail("digits/ddpm/base/s1/train")
    found = check.verdicts(collect(built.folder, built.experiment), built.experiment)
    assert [v.passed for v in found] == [False, True]
    assert found[0].note == "no data for seed 1"


def test_no_floor_is_no_data(tree):
    built = tree(checks=(fd(at_most=99),)).complete()
    built.fail("digits/controls")
    assert check.run(built.folder, built.experiment) == 1


def test_without_data_fails(tree):
    built = tree(checks=(fd(at_most=99), mmd(at_least=0)))
    assert check.run(built.folder, built.experiment) == 1


def test_without_checks_passes(tree):
    built = tree()
    assert check.run(built.folder, built.experiment) == 0


def test_scores_are_not_asked_of_what_is_not_scored(tree):
    built = tree(checks=(fd(at_most=99), mmd(at_most=1))).complete()
    built.experiment["samplings"]["ancestral"]["scored"] = False
    found = check.verdicts(collect(built.folder, built.experiment), built.experiment)
    assert [v.passed for v in found] == [False, True, True]
    assert found[0].where == "no sampling has this cell, nfe 20"
