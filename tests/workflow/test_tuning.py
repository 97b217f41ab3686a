"""A search through the DAG: moments, tune, samples of its own constants and of borrowed ones; then more calls."""

import copy
import json
from typing import Any

import pytest

from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow
RUN = "results/tiny/digits/ddpm/paper/s0"
DRAWN = [f"{RUN}/{name}/sample/manifest.json" for name in ("tuned", "borrowed")]


def tuned(*nfe: int) -> dict[str, Any]:
    """One run whose sampler asks for moments, and b is sought for it; another sampling takes the b of 2 calls."""
    values = copy.deepcopy(TINY)
    values["methods"].pop("other")
    analytic = {"sampler": {"name": "analytic-dpm", "images": 32}, "images": 80}
    search = {"name": "uniform-scaling", "images": 40, "low": 0.9, "high": 1.1, "strides": [0.1], "reach": 0}
    values["sampling"]["tuned"] = {**analytic, "nfe": list(nfe), "tuning": search}
    values["sampling"]["borrowed"] = {**analytic, "nfe": [4], "transfer": {"sampling": "tuned", "nfe": 2}}
    return values


def manifest(checkout: Checkout, place: str) -> dict[str, Any]:
    return json.loads((checkout.folder / place).read_text())


def test_constants_are_found_used_and_borrowed_and_more_calls_leave_them(checkout: Checkout) -> None:
    checkout.configure(tuned(2))
    wanted = {"data": 1, "train": 1, "classifier": 1, "reference": 1, "moments": 2, "tune": 1, "sample": 2}
    assert checkout.jobs("--", *DRAWN) == wanted
    done = checkout.snakemake("--", *DRAWN)
    assert done.returncode == 0, done.stdout + done.stderr
    search, first, borrowed = (manifest(checkout, place) for place in (f"{RUN}/tuned/tune/manifest.json", *DRAWN))
    found = json.loads((checkout.folder / search["folder"] / "nfe0002/found.json").read_text())["correction"]
    assert found["b"] in (0.9, 1.0, 1.1)
    assert [cell["calls"] for one in (first, borrowed) for cell in one["facts"]["cells"]] == [2, 4]
    checkout.configure(tuned(2, 4))
    assert checkout.jobs("--", *DRAWN) == {"moments": 1, "tune": 1, "sample": 2}
    done = checkout.snakemake("--", *DRAWN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 calls: tuned before" in (checkout.folder / RUN / "tuned/tune/log.txt").read_text()
    grown = manifest(checkout, DRAWN[0])
    assert grown["folder"] == first["folder"]
    assert first["files"].items() < grown["files"].items()
    assert manifest(checkout, DRAWN[1]) == borrowed
