"""Costs add up over segments; the time of a step is the median of its windows."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.records import costs, nvml
from pipeline_lib.records.costs import Segments, StepClock, Stopwatch, mixed, named, total


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def seconds(found: list[dict[str, Any]]) -> dict[int, float | None]:
    """By step."""
    return {one["step"]: one["seconds"] for one in found}


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
    clock.begin(0, 1)
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
    assert [wall for wall, *_ in clock.windows] == pytest.approx([1.0, 9.0, 1.1, 1.2])
    later = StepClock(clock.windows, layouts=clock.layouts)
    later.begin(18, 1)
    steps(later, 5, 1.0, 0.8)
    later.close()
    assert len(later.windows) == 5
    assert later.medians()["step_seconds"] == pytest.approx(1.1)


def test_seconds_until_a_snapshot_follow_the_windows_before_it() -> None:
    """Steps of 1 s, with one burst, until the snapshot at 30; then of 3 s, as where a regulariser begins; then untimed
    ones, which count as the median of all."""
    clock = StepClock([[1.0, 1.0], [9.0, 1.0], [1.0, 1.0], [3.0, 3.0], [3.0, 3.0]], [[30, 3], [50, 5]])
    clock.begin(0, 1)
    assert seconds(clock.elapsed(60)) == {30: 30.0, 50: 90.0, 60: 120.0}


def test_a_neighbour_on_the_gpu_costs_the_method_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s, of 2 s beside another process, until the snapshot at 40; then all beside one, which is said."""
    monkeypatch.setattr(costs, "_device", lambda: ("A", None))
    windows = [[1.0, 1.0, False], [2.0, 1.0, True], [2.0, 1.0, True], [2.0, 1.0, True]]
    clock = StepClock(windows, [[40, 3]])
    clock.begin(0, 1)
    until, whole = clock.elapsed(60)
    assert (until["seconds"], until["device"]) == (40.0, "A")
    assert (whole["seconds"], whole["device"]) == (80.0, "A (shared)")
    assert clock.medians()["step_seconds"] == 1.0


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (False, False)])
def test_a_window_is_shared_where_it_begins_or_ends_so(
    monkeypatch: pytest.MonkeyPatch, before: bool, after: bool
) -> None:
    monkeypatch.setattr(costs, "_others", lambda: before)
    clock = StepClock()
    clock.begin(0, 1)
    clock.steps = 1
    monkeypatch.setattr(costs, "_others", lambda: after)
    clock.close()
    assert clock.windows[0][2] == (before or after)


@pytest.mark.parametrize(("processes", "found"), [("1", False), ("2", True)])
def test_a_neighbour_on_any_gpu_of_the_job_slows_all_its_processes(
    monkeypatch: pytest.MonkeyPatch, processes: str, found: bool
) -> None:
    monkeypatch.setattr(costs, "_cuda", lambda: Gpus)
    monkeypatch.setattr(nvml, "processes", lambda: {"id-0": 2, "id-1": 1})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert costs._others() == found


def test_without_windows_the_seconds_are_unknown() -> None:
    clock = StepClock()
    clock.begin(0, 1)
    assert seconds(clock.elapsed(5)) == {5: None}


def test_device_seconds_are_those_of_as_many_processes_as_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 4 s alone until 40, with a snapshot at 20; of 1.5 s by four processes until 60; alone again, of 2 s
    until the snapshot at 70; then untimed ones, which count as the median of those alone: 4, 4 and 2 s."""
    monkeypatch.setattr(costs, "_device", lambda: ("A", None))
    clock = StepClock([[4.0, 1.0]] * 2, [[20, 1]])
    clock.begin(0, 1)
    clock = StepClock(clock.windows, clock.marks, clock.layouts)
    clock.begin(40, 4)
    clock.windows += [[1.5, 1.0], [1.5, 1.0]]
    assert clock.medians()["step_seconds"] == 1.5  # of four processes, as the last segment says
    clock = StepClock(clock.windows, clock.marks, clock.layouts)
    clock.begin(60, 1)
    clock.windows += [[2.0, 1.0]]
    clock.marks += [[70, 5]]
    assert seconds(clock.elapsed(80)) == {20: 80.0, 70: 160.0 + 20 * 1.5 * 4 + 20.0, 80: 300.0 + 40.0}
    assert clock.medians()["step_seconds"] == 4.0
    assert [layout["step"] for layout in clock.layouts] == [0, 40, 60]


def test_a_training_that_goes_on_elsewhere_names_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot at 10 was reached on the first device alone."""
    clock = StepClock([[1.0, 1.0]], [[10, 1]])
    for done, device, host in ((0, "A", "one"), (15, "B", "one"), (20, "B", "two"), (25, "A", "two")):
        monkeypatch.setattr(costs, "_device", lambda device=device: (device, None))
        monkeypatch.setattr(costs.socket, "gethostname", lambda host=host: host)
        clock.begin(done, 1)
    assert [(one["device"], one["host"]) for one in clock.elapsed(30)] == [("A", "one"), ("A + B", "one + two")]


def test_a_job_that_goes_on_as_it_was_is_no_change() -> None:
    clock = StepClock()
    for done in (0, 10, 20):
        clock.begin(done, 2)
    assert [(one["step"], one["processes"]) for one in clock.layouts] == [(0, 2)]
    old = StepClock([[1.0, 1.0]])  # a checkpoint that does not say
    old.begin(10, 2)
    assert seconds(old.elapsed(20)) == {20: 40.0}


def test_names_of_several() -> None:
    assert named(["A", "", "B + A", "A"]) == "A + B"
    assert [mixed(text) for text in ("", "A", "A + B")] == [False, False, True]


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
        device_count=lambda: 2,
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
        Segments(tmp_path).begin(step, reached, 4 if step == 100 else 1)
    found = starts.costs(200)
    assert (found["segments"], found["lost_steps"]) == (4, 45)
    assert [(one["start"], one["end"]) for one in found["runs"]] == [(0, 130), (100, 160), (160, 175), (160, 200)]
    assert [one["processes"] for one in found["runs"]] == [1, 4, 1, 1]
    with starts.path.open("a") as stream:
        stream.write('{"start": 18')
    assert starts.costs(200) == found
    starts.begin(0)
    assert starts.costs(10)["segments"] == 1  # begun anew
