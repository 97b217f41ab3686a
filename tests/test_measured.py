"""Hours of trainings from those that have ended: equal steps count, others do not."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.models import Run
from pipeline_lib.config.plan import load
from pipeline_lib.estimate import text
from pipeline_lib.measured import Hours, hours
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run
from tests.workflow.conftest import ROOT

SHAPE = (1, 8, 8)


def ended(data: Manifest, device: str, *seconds: float) -> None:
    """Finished trainings of `tiny_run`, whose steps have taken so long on a device."""
    for seed, one in enumerate(seconds):
        train.run({**tiny_run(), "seed": seed}, RUNTIME, Path("out/manifest.json"), data)
        folder = Manifest.load("out/manifest.json").folder
        path = Path(folder) / "costs.json"
        found = json.loads(path.read_text())
        assert found["step_seconds"] > 0  # it is measured, and the test only says how long
        path.write_text(json.dumps(found | {"step_seconds": one, "device": device}))


def planned(**overrides: Any) -> Run:
    return Run.model_validate({k: v for k, v in tiny_run(**overrides).items() if k != "seed"})


def test_steps_times_the_median_of_equal_ones(tiny_data: Manifest) -> None:
    """Steps of 2, 9 and 4 s: 1800 planned ones take 2 h each; learning rate and seed change nothing."""
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0, 9.0, 4.0)
    runs = [planned(training={"steps": 1800}), planned(training={"steps": 1800, "lr": 0.5})]
    assert hours([(run, SHAPE) for run in runs], 1) == [Hours("H", 2, pytest.approx(4.0), 3)]


def test_other_steps_are_not_taken_for_equal(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0)
    others = [
        planned(network={"channels": 16}),
        planned(training={"batch_size": 8}),
        planned(diffusion={"timesteps": 9}),
    ]
    assert hours([(run, SHAPE) for run in others], 1) == []
    assert hours([(planned(), (1, 16, 16)), (planned(), None)], 1) == []
    assert hours([(planned(), SHAPE)], 2) == []  # two processes share a step


def test_steps_on_several_devices_are_of_none(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "A + B", 2.0)
    assert hours([(planned(), SHAPE)], 1) == []


def test_what_is_not_finished_or_of_another_version_is_passed_over(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0, 4.0)
    first, second = sorted(STORE.glob("train-*"))
    (first / "manifest.json").unlink()
    identity = json.loads((second / "identity.json").read_text())
    identity["config"]["unknown"] = 1
    (second / "identity.json").write_text(json.dumps(identity))
    assert hours([(planned(), SHAPE)], 1) == []


def test_the_plan_says_so_where_nothing_was_measured() -> None:
    assert "hours: not known; no training of these" in text(load(ROOT / "config.yaml"))
