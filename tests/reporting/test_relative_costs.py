"""Costs of a step beside those of the control: ratios by hand, and a reason where there is none."""

import json
from typing import Any

import pandas as pd
import pytest

from pipeline_lib.reporting import relative_costs, tables
from tests.reporting.compared_tree import Grown, values

REG = values([0])["methods"]["reg"]
METHODS = {
    "ddpm": values([0])["methods"]["ddpm"],
    "reg": {
        **REG,
        "variants": {
            "paper": REG["variants"]["paper"],
            "wide": {"control": "ddpm/paper", "preset": "paper", "run": {"network": {"channels": 64, "dropout": 0.3}}},
            "more": {"control": "ddpm/paper", "preset": "paper", "run": {"training": {"batch_size": 256}}},
        },
    },
}


def tree(seeds: tuple[int, ...] = (0, 1), **costs: Any) -> Grown:
    """Steps of 10 ms and 1 call for DDPM, of 25 ms and 2.5 calls for the other, whose costs `costs` changes."""
    built = Grown(list(seeds), methods=METHODS, sweeps={})
    for one in built.experiment["instances"]:
        who, reg = f"{one['method']}/{one['variant']}", one["method"] == "reg"
        built.run(who, one["seed"], 3.0, step_ms=25.0 if reg else 10.0)
        path = built.folder / one["path"] / "train/costs.json"
        more = {"host": "one", "network_calls": 2.5 if reg else 1.0, **(costs if reg else {})}
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return built


def rows(built: Grown) -> pd.DataFrame:
    return relative_costs.measure(built.folder, built.experiment, built.tables).set_index(["method", "variant"])


def test_ratios_are_those_of_the_means() -> None:
    found = rows(tree()).loc[("reg", "paper")]
    assert found["seeds"] == 2
    assert (found["step_seconds"], found["relative_step_seconds"]) == (pytest.approx(0.025), pytest.approx(2.5))
    assert found["relative_step_cpu_seconds"] == pytest.approx(2.5)
    assert found["relative_peak_memory_mb"] == pytest.approx(125 / 110)
    assert found["relative_network_calls"] == pytest.approx(2.5)
    assert found["expected_calls"] == pytest.approx(2.48, abs=0.01)  # L = 5, T = 100: docs/methods/ddpm-reg.md
    assert found["note"] == ""


def test_a_control_has_its_own_costs_alone() -> None:
    found = rows(tree()).loc[("ddpm", "paper")]
    assert (found["network_calls"], found["expected_calls"], found["note"]) == (1, 1, "")
    assert pd.isna(found["relative_step_seconds"])


@pytest.mark.parametrize(("variant", "keys"), [("wide", "network.channels"), ("more", "training.batch_size")])
def test_other_work_in_a_step_is_not_compared(variant: str, keys: str) -> None:
    found = rows(tree()).loc[("reg", variant)]
    assert found["note"] == f"differs from its control in {keys}"
    assert found.filter(like="relative_").isna().all()
    assert found["step_seconds"] == pytest.approx(0.025)


@pytest.mark.parametrize("other", [{"host": "two"}, {"device": "a GPU", "peak_gpu_memory_mb": 7.0}])
def test_another_machine_is_not_compared(other: dict[str, Any]) -> None:
    found = rows(tree(**other)).loc[("reg", "paper")]
    assert found["note"] == "its control was trained on another machine"
    assert pd.isna(found["relative_step_seconds"])


def test_seconds_beside_a_neighbour_are_not_compared() -> None:
    """Nor where both had one: each may have been slowed by another share."""
    built = tree(device="a GPU (shared)", peak_gpu_memory_mb=7.0)
    for path in built.folder.rglob("ddpm/paper/*/train/costs.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "device": "a GPU (shared)"}))
    found = rows(built).loc[("reg", "paper")]
    assert found["note"] == "one of the two was timed on a GPU that other processes used as well"
    assert pd.isna(found["relative_step_seconds"])


def test_what_was_not_counted_is_empty() -> None:
    """Trainings of before the count."""
    found = rows(tree(network_calls=None)).loc[("reg", "paper")]
    assert pd.isna(found["network_calls"])
    assert pd.isna(found["relative_network_calls"])
    assert found["relative_step_seconds"] == pytest.approx(2.5)


def test_the_table_of_a_reader() -> None:
    built = tree()
    tables.run(built.folder, built.experiment)
    text = (built.folder / "tables/costs_relative.md").read_text()
    assert "| 0.025 (2.50x) |" in text
    assert "ddpm/paper" not in text  # a control has the name of its own row
    assert "differs from its control in training.batch_size" in text
    assert len(pd.read_parquet(built.folder / "tables/costs_relative.parquet")) == 4
