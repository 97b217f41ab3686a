"""Hours of trainings from those that have ended: equal steps count, others do not, and those that are done neither."""

import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.models import Run
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.estimate import text
from pipeline_lib.exits import TryAgain
from pipeline_lib.measured import Hours, hours
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.training import identity, train
from pipeline_lib.training.identity import steps_done
from pipeline_lib.training.lease import process
from tests.config.test_plan import MINIMAL, plan
from tests.conftest import RUNTIME, tiny_data, tiny_run
from tests.training.test_resume import After
from tests.workflow.conftest import ROOT

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def _logged_as_in_a_job(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline_lib")


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
    """Steps of 2, 9 and 4 s: 1800 planned ones take 2 h, 900 that are left 1 h; the learning rate changes nothing."""
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0, 9.0, 4.0)
    runs = [planned(training={"steps": 1800}), planned(training={"steps": 1800, "lr": 0.5})]
    left = [(run, SHAPE, steps) for run, steps in zip(runs, (1800, 900), strict=True)]
    assert hours(left, 1) == [Hours("H", 2, pytest.approx(3.0), 3)]


def test_other_steps_are_not_taken_for_equal(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0)
    others = [
        planned(network={"channels": 16}),
        planned(training={"batch_size": 8}),
        planned(diffusion={"timesteps": 9}),
    ]
    assert hours([(run, SHAPE, 1) for run in others], 1) == []
    assert hours([(planned(), (1, 16, 16), 1), (planned(), None, 1)], 1) == []
    assert hours([(planned(), SHAPE, 1)], 2) == []  # two processes share a step


def test_steps_on_several_devices_are_of_none(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "A + B", 2.0)
    assert hours([(planned(), SHAPE, 1)], 1) == []


def test_what_is_not_finished_or_of_another_version_is_passed_over(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    ended(tiny_data, "H", 2.0, 4.0)
    first, second = sorted(STORE.glob("train-*"))
    (first / "manifest.json").unlink()
    about = json.loads((second / "identity.json").read_text())
    about["config"]["unknown"] = 1
    (second / "identity.json").write_text(json.dumps(about))
    assert hours([(planned(), SHAPE, 1)], 1) == []


def test_the_plan_says_so_where_nothing_was_measured() -> None:
    assert "hours: not known; no training of these" in text(load(ROOT / "config.yaml"))


def planned_experiment(seeds: int) -> Plan:
    """An experiment of so many trainings of `tiny_run` on the tiny data, which is there."""
    base = {k: v for k, v in tiny_run().items() if k not in ("objective", "seed")}
    plain = {"objective": "ddpm", "variants": {"plain": {}}}
    values = {**MINIMAL, "seeds": list(range(seeds)), "base": base, "methods": {"ddpm": plain}}
    values["sampling"] = {"ancestral": {"sampler": "ancestral", "nfe": [4], "images": 80}}
    one = plan({**values, "datasets": {"digits": {"recipe": "digits"}}})
    for path in (Path(one.trained_on(one.instances[0])), Path("out/manifest.json")):
        path.parent.mkdir(parents=True, exist_ok=True)
    tiny_data().save(one.trained_on(one.instances[0]))
    return one


def stopped(one: Plan, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the training of a seed, which was stopped after so many steps."""
    data = Manifest.load(one.trained_on(one.instances[0]))
    with monkeypatch.context() as patch:
        patch.setattr(train, "Stop", lambda minutes: After(steps))
        with pytest.raises(TryAgain):
            train.run(one.instances[seed].config, RUNTIME, Path("out/manifest.json"), data)
    return max(STORE.glob("train-*"), key=lambda folder: folder.stat().st_mtime_ns)


def said(one: Plan) -> str:
    return " ".join(text(one).split())


def test_the_plan_counts_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three trainings of 12 steps of half an hour has ended, and one was stopped after 7: 5 and 12 are left."""
    one = planned_experiment(3)
    ended(Manifest.load(one.trained_on(one.instances[0])), "H", 1800.0)
    assert "hours, devices times wall time: 12 h on H for 2 of 2 trainings" in said(one)
    assert "Not counted: 1 of 3 have ended. " in said(one)
    stopped(one, 1, 7, monkeypatch)
    assert "8.5 h on H for 2 of 2 trainings" in said(one)
    assert "Not counted: 1 of 3 have ended; 1 has begun: 7 of 12 steps done." in said(one)
    stopped(one, 2, 6, monkeypatch)
    assert "2 have begun: 13 of 24 steps done." in said(one)


def test_nothing_is_left_once_all_have_ended() -> None:
    one = planned_experiment(2)
    ended(Manifest.load(one.trained_on(one.instances[0])), "H", 1.0, 1.0)
    assert "hours: none; all trainings have ended." in said(one)


def test_a_result_of_an_earlier_version_counts_while_nothing_asks_for_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of the code is no input: Snakemake trains anew only where the configuration or the data changed."""
    one = planned_experiment(1)
    one.write()
    data, home = Path(one.trained_on(one.instances[0])), one.root / one.instances[0].path / "train"
    train.run(one.instances[0].config, RUNTIME, home / "manifest.json", Manifest.load(data))
    monkeypatch.setattr(identity, "VERSION", identity.VERSION + 1)
    done = "hours: none; all trainings have ended."
    assert done in said(one)
    made = (home / "manifest.json").stat().st_mtime_ns
    for path in (home / "config.json", data):
        os.utime(path, ns=(made + 1, made + 1))
        assert done not in said(one)
        os.utime(path, ns=(made, made))
        assert done in said(one)
    config = json.loads((home / "config.json").read_text())
    config["config"]["training"]["steps"] = 99  # the file of the experiment was changed since, and nothing was run
    (home / "config.json").write_text(json.dumps(config))
    os.utime(home / "config.json", ns=(made, made))
    assert done not in said(one)


def test_without_a_training_that_has_ended_the_plan_says_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    one = planned_experiment(1)
    stopped(one, 0, 7, monkeypatch)
    assert "in results/store yet. Not counted: 1 has begun: 7 of 12 steps done." in said(one)


def test_steps_that_are_done_are_those_that_a_checkpoint_or_a_living_trainer_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead trainer's heartbeat at 9 is later than its checkpoint; without a log the history tells, every 5 steps."""
    folder = stopped(planned_experiment(1), 0, 7, monkeypatch)
    here = {"host": socket.gethostname(), "pid": os.getpid(), **process(os.getpid())}
    holder = {"job": "1", "token": "other", "step": 9, **here}
    (folder / "lease.json").write_text(json.dumps(holder))
    assert steps_done(folder) == 9
    (folder / "lease.json").write_text(json.dumps({**holder, "started": "0"}))
    assert steps_done(folder) == 7
    (folder / "log.txt").unlink()
    assert steps_done(folder) == 5
    (folder / "history.parquet").write_bytes(b"cut short")
    assert steps_done(folder) == 0


def test_without_a_checkpoint_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(planned_experiment(1), 0, 7, monkeypatch)
    for path in folder.glob("checkpoint*.pt"):
        path.unlink()
    assert steps_done(folder) == 0
