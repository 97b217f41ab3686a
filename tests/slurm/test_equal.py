"""Two runs with an equal training on a real cluster: the second waits in the queue, without a GPU."""

import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import STEPS, Experiment

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]


def test_an_equal_training_depends_on_the_one_that_was_submitted_first(slurm: Cluster, tmp_path: Path) -> None:
    same = {"objective": {"label": "same"}}
    one = Experiment(tmp_path, slurm, {"a": same, "b": same})
    try:
        assert one.start().wait(timeout=300) == 0
    finally:
        for head in one.heads:
            head.kill()
    said = one.log.read_text()
    numbers = {name: (one.place(name) / "slurm-job.txt").read_text().split()[0] for name in "ab"}
    first, second = sorted(numbers, key=lambda name: int(numbers[name]))
    assert f"starts after SLURM job {numbers[first]}, of the same output or an equal one" in said
    assert one.jobs("same") == [numbers[first]]
    assert [step.step for step in one.steps("same")] == list(range(STEPS))
    assert one.manifest(first) == one.manifest(second)
    log = (one.place(second) / "log.txt").read_text()
    assert "trained before: found in" in log
    assert "another trainer" not in log
    shown = ["scontrol", "show", "job", numbers[second], "--oneliner"]
    done = subprocess.run(shown, env=slurm.environment, capture_output=True, text=True, check=True)
    assert "JobState=COMPLETED" in done.stdout
