"""Which GPU a job takes, on a machine that seems to have some."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline_lib import device
from pipeline_lib.exits import TryAgain


def show(monkeypatch: pytest.MonkeyPatch, *cards: str) -> None:
    """As CUDA_VISIBLE_DEVICES does: these cards, in this order."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=cards[index]))


def job(monkeypatch: pytest.MonkeyPatch, locks: Path) -> int | None:
    """The index that another job takes: locks of one process exclude one another, since each opens the file again."""
    monkeypatch.setattr(device, "_held", [])
    return device.pick(locks).index


def ends(locks: Path, card: str, place: int) -> None:
    next(locks.glob(f"*-{card}-{place}")).unlink()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    show(monkeypatch, "card0", "card1")
    monkeypatch.setattr(device, "_held", [])
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_jobs_spread_over_the_gpus_and_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for _ in range(5):
        taken.append(job(monkeypatch, tmp_path))
        assert device.pick(tmp_path).index == taken[-1]
    assert taken == [0, 1, 0, 1, 0]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_has_become_free_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [job(monkeypatch, tmp_path) for _ in range(3)] == [0, 1, 0]
    ends(tmp_path, "card0", 0)
    ends(tmp_path, "card1", 0)
    assert job(monkeypatch, tmp_path) == 1  # the third job is still on the first GPU, though not in its first place


@pytest.mark.usefixtures("two_gpus")
def test_an_index_is_another_card_where_others_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job(monkeypatch, tmp_path) == 0
    show(monkeypatch, "card1", "card0")
    assert job(monkeypatch, tmp_path) == 0
    show(monkeypatch, "card0", "card2")
    assert job(monkeypatch, tmp_path) == 1


@pytest.mark.usefixtures("two_gpus")
def test_each_process_of_a_job_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.pick(tmp_path).index == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("two_gpus")
def test_processes_of_a_job_never_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL refuses two on one card; a free second place of a busy GPU is no place for the second process."""
    show(monkeypatch, "card0", "card1", "card2", "card3")
    assert [job(monkeypatch, tmp_path) for _ in range(4)] == [0, 1, 2, 3]
    ends(tmp_path, "card0", 0)
    taken = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", rank)
        taken.append(job(monkeypatch, tmp_path))
    assert len(set(taken)) == 2


@pytest.mark.usefixtures("two_gpus")
def test_where_files_cannot_be_locked_there_is_still_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("Function not implemented")

    monkeypatch.setattr(device.fcntl, "flock", refused)
    assert job(monkeypatch, tmp_path) == 0


def test_a_job_with_a_broken_gpu_does_not_go_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(TryAgain, match="CUDA finds none that works"):
        device.pick()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert device.pick() == torch.device("cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("SLURM_JOB_GPUS")
    assert device.pick() == torch.device("cpu")
