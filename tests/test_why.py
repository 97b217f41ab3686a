"""Reasons of a dry run, grouped by rule."""

from collections import Counter

import pytest

from pipeline_lib.why import AFTER, reasons

SAID = """
[Sun Nov 22 11:34:25 2026]
rule train:
    input: a/config.json
    reason: {0}
    wildcards: seed=0
rule train:
    reason: {0}
localrule report:
    reason: Missing output files: r.html; Input files updated by another job: a, b
rule all:
    reason: Input files updated by another job: a
"""


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("Missing output files: a/manifest.json", "its output is not there"),
        ("Updated input files: a/train/config.json", "its configuration changed"),
        ("Updated input files: a/data/manifest.json", "an input changed"),
        ("Input files updated by another job: a", AFTER),
        ("Params have changed since last execution: before: 1 now: 2", "its parameters changed"),
        ("Code has changed since last execution; Input files updated by another job: a", "the rule's code changed"),
        ("Something new: of a later Snakemake", "Something new"),
    ],
)
def test_reasons_are_counted_by_rule(reason: str, why: str) -> None:
    found = Counter(reasons(SAID.format(reason)))
    assert found == {("train", why): 2, ("report", "its output is not there"): 1}
