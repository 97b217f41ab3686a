"""Costs add up over segments; the time of a step is the median of its windows."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_lib.records import costs, nvml
from pipeline_lib.records.costs import Segments, StepClock, Stopwatch, total


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


def test_sums_know_only_what_all_parts_know() -> None:
    whole = {"seconds": 2.0, "cpu_seconds": 1.0, "gpu_hours": 0.5, "energy_kwh": 0.1}
    old = {"seconds": 3.0, "cpu_seconds": 1.0}
    assert total([whole, whole]) == {"seconds": 4.0, "cpu_seconds": 2.0, "gpu_hours": 1.0, "energy_kwh": 0.2}
    assert total([whole, old]) == {"seconds": 5.0, "cpu_seconds": 2.0, "gpu_hours": None, "energy_kwh": None}


def test_on_a_cpu_there_are_no_gpu_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_cuda", lambda: None)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    found = Stopwatch("train").read()
    assert (found["gpu_hours"], found["energy_kwh"], found["driver"], found["job"]) == (0.0, 0.0, None, "77")


class Gpus:
    """torch with two GPUs of which the second is this job's."""

    cuda = SimpleNamespace(
        current_device=lambda: 1,
        get_device_properties=lambda i: SimpleNamespace(uuid=f"id-{i}"),
        get_device_name=lambda: "H",
        max_memory_allocated=lambda: 2**21,
    )


@pytest.mark.parametrize(
    ("world", "hours", "energy"), [((1, 1), 1.0, 0.5), ((2, 2), 2.0, 0.5 + 0.25), ((4, 2), 4.0, None)]
)
def test_gpu_hours_and_energy_of_the_processes_of_a_job(
    monkeypatch: pytest.MonkeyPatch, world: tuple[int, int], hours: float, energy: float | None
) -> None:
    """An hour, in which the first GPU takes 0.25 kWh and the second 0.5; of several hosts only one is seen."""
    monkeypatch.setenv("WORLD_SIZE", str(world[0]))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world[1]))
    monkeypatch.setattr(costs, "_cuda", lambda: Gpus)
    monkeypatch.setattr(nvml, "energies", lambda: {"id-0": 7.0, "id-1": 9.0})
    watch = Stopwatch("train")
    monkeypatch.setattr(nvml, "energies", lambda: {"id-0": 7.0 + 0.9e6, "id-1": 9.0 + 1.8e6})
    watch.start -= 3600
    found = watch.read()
    assert found["gpu_hours"] == pytest.approx(hours, rel=1e-3)
    assert found["energy_kwh"] == (None if energy is None else pytest.approx(energy))
    assert (found["device"], found["peak_gpu_memory_mb"]) == ("H", 2.0)
    again = Stopwatch("train", found).read()
    assert again["gpu_hours"] == pytest.approx(hours, rel=1e-3)


def test_segments_outlive_a_kill(tmp_path: Path) -> None:
    """Killed at 130 with a checkpoint at 100, stopped at 160, killed again in vain; then a line that was cut short."""
    starts = Segments(tmp_path)
    for step, reached in ((0, 0), (100, 130), (160, 0), (160, 175)):
        Segments(tmp_path).begin(step, reached)
    found = starts.costs(200)
    assert (found["segments"], found["lost_steps"]) == (4, 45)
    assert [(one["start"], one["end"]) for one in found["runs"]] == [(0, 130), (100, 160), (160, 175), (160, 200)]
    with starts.path.open("a") as stream:
        stream.write('{"start": 18')
    assert starts.costs(200) == found
    starts.begin(0)
    assert starts.costs(10)["segments"] == 1  # begun anew
