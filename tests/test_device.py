"""Which GPU a job takes, on a machine that seems to have some."""

from pathlib import Path

import pytest
import torch

from pipeline_lib import device
from pipeline_lib.exits import TryAgain


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(device, "_held", [])
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_jobs_spread_over_the_gpus_and_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for _ in range(5):  # five jobs: locks of one process exclude one another, since each opens the file again
        monkeypatch.setattr(device, "_held", [])
        taken.append(device.pick(tmp_path).index)
        assert device.pick(tmp_path).index == taken[-1]
    assert taken == [0, 1, 0, 1, 0]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_has_become_free_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.pick(tmp_path)
    (held,) = tmp_path.iterdir()
    monkeypatch.setattr(device, "_held", [])
    assert device.pick(tmp_path).index == 1
    monkeypatch.setattr(device, "_held", [])
    held.unlink()  # its job has ended
    assert device.pick(tmp_path).index == 0


@pytest.mark.usefixtures("two_gpus")
def test_each_process_of_a_job_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.pick(tmp_path).index == 1
    assert not list(tmp_path.iterdir())


def test_a_job_with_a_broken_gpu_does_not_go_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(TryAgain, match="CUDA finds none that works"):
        device.pick()
    monkeypatch.delenv("SLURM_JOB_GPUS")
    assert device.pick() == torch.device("cpu")
