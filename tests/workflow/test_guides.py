"""What Snakemake plans for a guided sampling: the classifier is trained first, and is not sampled."""

import copy
from typing import Any

import pytest

from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow
CELL = "results/tiny/digits/ddpm/paper/s0/guided"


def guided() -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    network = {"name": "encoder", "head_channels": 8}
    variants = {"paper": {"preset": "paper", "run": {"network": network, "training": {"flip": False}}}}
    values["methods"]["guide"] = {"objective": "noisy-classifier", "variants": variants}
    named = {"name": "classifier-guidance", "classifier": "guide/paper", "scale": 1.0}
    values["sampling"]["guided"] = {**values["sampling"]["ancestral"], "corrections": [named]}
    return values


def test_guided_samples_and_errors_wait_for_the_classifier(checkout: Checkout) -> None:
    checkout.configure(guided())
    assert checkout.jobs("--", f"{CELL}/sample/manifest.json") == {"data": 1, "train": 2, "sample": 1}
    assert checkout.jobs("--", f"{CELL}/errors/errors.parquet") == {"data": 1, "bandwidths": 1, "train": 2, "errors": 1}
    plain = CELL.replace("guided", "ancestral")
    assert checkout.jobs("--", f"{plain}/sample/manifest.json") == {"data": 1, "train": 1, "sample": 1}


def test_the_guided_experiment_runs_to_its_report(checkout: Checkout) -> None:
    """Tables, figures and tracking do with a training that is not sampled."""
    values = guided()
    values["methods"].pop("other")
    checkout.configure(values)
    done = checkout.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.folder / CELL / "errors/errors.parquet").is_file()
    assert (checkout.folder / "results/tiny/report.html").is_file()
    assert not (checkout.folder / "results/tiny/digits/guide/paper/s0/guided").exists()
