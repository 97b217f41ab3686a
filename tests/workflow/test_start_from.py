"""What Snakemake plans without running anything: a start from other weights, equal runs, whose experiment it is."""

import copy
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


def test_equal_runs_do_not_name_each_other(checkout: Checkout) -> None:
    """'other' is 'ddpm' under another name: its inputs are its own, whatever becomes of 'ddpm'."""
    checkout.configure(TINY)
    target = "results/tiny/digits/other/paper/s0/ancestral/sample/manifest.json"
    assert checkout.jobs("--", target) == {"data": 1, "train": 1, "sample": 1}


def test_a_dry_run_claims_no_experiment(checkout: Checkout) -> None:
    """Two files may be looked at under one name; who runs first owns it."""
    checkout.configure(TINY, "copy.yaml")
    for name in ("config.yaml", "copy.yaml"):
        assert checkout.snakemake("-n", "--configfile", name).returncode == 0
    assert not (checkout.folder / "results/tiny/config/source.json").exists()
