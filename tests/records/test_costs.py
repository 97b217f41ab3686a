"""Costs add up over segments; the time of a step is the median of its windows."""

import json
import time
from pathlib import Path

import pytest

from pipeline_lib.records.costs import StepClock, Stopwatch


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cpu_time_is_that_of_the_process_and_adds_up() -> None:
    watch = Stopwatch("train", {"seconds": 100.0, "cpu_seconds": 40.0, "segments": 1})
    burn(0.05)
    time.sleep(0.2)
    found = watch.read()
    assert 40.05 <= found["cpu_seconds"] < 40.2  # sleeping costs none
    assert found["seconds"] >= 100.25 - 0.01
    assert found["segments"] == 2


def test_a_step_is_the_median_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(time, "process_time", lambda: now["cpu"])

    def steps(clock: StepClock, count: int, wall: float, cpu: float) -> None:
        clock.steps += count
        now["wall"] += count * wall
        now["cpu"] += count * cpu

    clock = StepClock()
    assert clock.medians() == {"step_seconds": None, "step_cpu_seconds": None}
    for wall in (1.0, 9.0, 1.1):  # the second beside a neighbour
        steps(clock, 5, wall, 0.8)
        clock.close()
    assert clock.medians() == {"step_seconds": pytest.approx(1.1), "step_cpu_seconds": pytest.approx(0.8)}
    steps(clock, 2, 1.0, 0.8)
    now["wall"] += 1000  # a checkpoint is written
    clock.restart()
    steps(clock, 3, 1.2, 0.8)
    clock.close()
    clock.close()  # without a step there is no window
    assert [wall for wall, _ in clock.windows] == pytest.approx([1.0, 9.0, 1.1, 1.2])
    later = StepClock(clock.windows)
    steps(later, 5, 1.0, 0.8)
    later.close()
    assert len(later.windows) == 5
    assert later.medians()["step_seconds"] == pytest.approx(1.1)


def test_seconds_until_a_snapshot_follow_the_windows_before_it() -> None:
    """Steps of 1 s, with one burst, until the snapshot at 30; then of 3 s, as where a regulariser begins; then untimed
    ones, which count as the median of all."""
    clock = StepClock([[1.0, 1.0], [9.0, 1.0], [1.0, 1.0], [3.0, 3.0], [3.0, 3.0]], [[30, 3], [50, 5]])
    assert clock.elapsed(60) == [
        {"step": 30, "seconds": 30.0},
        {"step": 50, "seconds": 90.0},
        {"step": 60, "seconds": 120.0},
    ]


def test_without_windows_the_seconds_are_unknown() -> None:
    assert StepClock().elapsed(5) == [{"step": 5, "seconds": None}]


def test_what_is_saved(tmp_path: Path) -> None:
    Stopwatch("train").save(tmp_path, 8.0, step_seconds=0.5)
    found = json.loads((tmp_path / "costs.json").read_text())
    assert (found["stage"], found["images"], found["step_seconds"]) == ("train", 8.0, 0.5)
    assert found["peak_memory_mb"] > 10
