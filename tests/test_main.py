"""How a stage ends: exit codes, and the marker that keeps a permanent failure from being tried again."""

import errno
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline_lib import device, launch
from pipeline_lib.__main__ import main
from pipeline_lib.exits import BadConfig, BadData, TryAgain
from tests.conftest import write_config

MARKER = Path("run/failed.json")


def damaged() -> BadData:
    """As stages say it of a file that they cannot read, whatever the reason."""
    try:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError as error:
            raise BadData(f"the weights x cannot be read ({error}).") from None
    except BadData as error:
        return error


ENDS = {
    "done": (None, 0),
    "damaged data": (BadData("the file x is damaged."), 65),
    "a file that a lost server hides": (damaged(), 75),
    "a configuration": (BadConfig("no such key."), 78),
    "time": (TryAgain("stopped after step 3."), 75),
    "a GPU": (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), 75),
    "a kernel that is wrong": (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), 70),
    "a file server": (OSError(errno.ESTALE, "Stale file handle"), 75),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), 75),
    "no file": (FileNotFoundError(errno.ENOENT, "No such file or directory"), 70),
    "memory": (MemoryError(), 75),
    "memory of a GPU": (torch.OutOfMemoryError("CUDA out of memory."), 75),
    "a bug": (KeyError("x"), 70),
}


def arguments(*more: str) -> list[str]:
    """Of the stage `sample`, which several processes may share."""
    config = write_config(Path("run/config.json"), "sample", {"a": 1})
    trained = {"stage": "train", "fingerprint": "f", "folder": "x", "files": {}}
    Path("train.json").write_text(json.dumps(trained))
    return ["sample", "--config", str(config), "--train", "train.json", "--output", "run/manifest.json", *more]


def does(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> None:
    """The stage does this."""
    module = SimpleNamespace(run=lambda **_: work())
    monkeypatch.setattr(importlib, "import_module", lambda name: module)


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def work() -> None:
        if error:
            raise error

    does(monkeypatch, work)


@pytest.mark.parametrize(("error", "code"), ENDS.values(), ids=ENDS)
def test_only_what_would_fail_again_leaves_a_marker(
    error: Exception | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, error)
    assert main(arguments()) == code
    assert MARKER.exists() == (code in (65, 70, 78))
    fails(monkeypatch, None)
    assert main(arguments("--attempt", "2")) == (code if code in (65, 70, 78) else 0)
    assert main(arguments()) == 0  # somebody asks anew
    assert not MARKER.exists()


def test_numbers_that_a_gpu_of_ones_own_has_no_room_for_are_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "crowded", lambda where: False)
    fails(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."))
    assert main(arguments()) == 78
    assert (
        "numbers of the sample stage do not fit the memory of the GPU; lower"
        in json.loads(MARKER.read_text())["sentence"]
    )


def test_a_marker_of_another_process_of_this_job_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast one fails and says why; a slow one begins only then, the first as well as any other."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    fails(monkeypatch, BadConfig("no such key."))
    assert main(arguments()) == 78
    monkeypatch.setenv("RANK", "0")
    fails(monkeypatch, TryAgain("another process of this job has left."))
    assert main(arguments()) == 75
    assert json.loads(MARKER.read_text())["sentence"] == "no such key."


def test_processes_start_without_the_marker_of_an_earlier_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(launch, "launch", lambda *_: seen.append(MARKER.exists()) or 0)
    fails(monkeypatch, BadConfig("no such key."))
    assert main(arguments()) == 78
    assert main(arguments("--processes", "2", "--attempt", "2")) == 78
    assert seen == []  # the same would fail again
    assert main(arguments("--processes", "2")) == 0
    assert seen == [False]


def test_a_process_that_ends_well_keeps_the_marker_of_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process, too, which may finish after another one has failed in its last lines."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, error, code in (("1", BadConfig("no such key."), 78), ("0", None, 0)):
        monkeypatch.setenv("RANK", rank)
        fails(monkeypatch, error)
        assert main(arguments()) == code
    assert json.loads(MARKER.read_text())["sentence"] == "no such key."
