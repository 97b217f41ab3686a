"""What Snakemake plans without running anything: a start from other weights, equal runs, whose experiment it is."""

import copy
import re
from typing import Any

import pytest

from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow
TUNED = "results/tiny/digits/other/tuned/s0/train/manifest.json"


def with_start(start: str | None) -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    own = {"training": {"lr": 2e-3}}
    values["methods"]["other"]["variants"]["tuned"] = {"preset": "paper", "init_from": start, "run": own}
    return values


def test_a_training_that_starts_from_another_waits_for_it(checkout: Checkout) -> None:
    checkout.configure(with_start("ddpm/paper"))
    assert checkout.jobs("--", TUNED) == {"data": 1, "train": 2}
    done = checkout.snakemake("-n", "-p", "--", TUNED)
    assert "--init results/tiny/digits/ddpm/paper/s0/train/manifest.json" in done.stdout
    checkout.configure(with_start(None))
    assert checkout.jobs("--", TUNED) == {"data": 1, "train": 1}


def test_equal_runs_come_one_after_the_other(checkout: Checkout) -> None:
    """'other' is 'ddpm' under another name, so its jobs would wait for those of 'ddpm' with a GPU in their hands."""
    checkout.configure(TINY)
    twin, first = (f"results/tiny/digits/{method}/paper/s0" for method in ("other", "ddpm"))
    done = checkout.snakemake("-n", "--", f"{twin}/ancestral/sample/manifest.json")
    inputs = {}
    for rule, of in re.findall(r"^(?:local)?rule (\w+):\n    input: (.*)$", done.stdout, re.MULTILINE):
        inputs.setdefault(rule, []).append(of.split(", "))
    assert {rule: len(jobs) for rule, jobs in inputs.items()} == {"data": 1, "train": 2, "sample": 2}
    for rule, made in (("train", "train/manifest.json"), ("sample", "ancestral/sample/manifest.json")):
        (own,) = [of for of in inputs[rule] if f"{twin}/{made.replace('manifest', 'config')}" in of]
        assert f"{first}/{made}" in own


def test_a_dry_run_claims_no_experiment(checkout: Checkout) -> None:
    """Two files may be looked at under one name; who runs first owns it."""
    checkout.configure(TINY, "copy.yaml")
    for name in ("config.yaml", "copy.yaml"):
        assert checkout.snakemake("-n", "--configfile", name).returncode == 0
    assert not (checkout.folder / "results/tiny/config/source.json").exists()
