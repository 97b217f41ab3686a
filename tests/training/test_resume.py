"""Stop and resume: bit by bit the uninterrupted run; damaged checkpoints; second trainers; full disks."""

import errno
import io
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline_lib.config.models import Run
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.exits import BadConfig, BadData, TryAgain
from pipeline_lib.objectives import adm
from pipeline_lib.records import costs as costs_of_jobs
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.training import lease, train
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.lease import Lease
from pipeline_lib.training.loop import Trainer
from pipeline_lib.training.stop import Stop
from tests.conftest import RUNTIME, tiny_run, write_config


class After(Stop):
    """Stops after so many questions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def listen(self) -> Stop:
        return self

    def reason(self) -> str | None:
        self.count -= 1
        return "the test says so" if self.count <= 0 else None


def fit(data: Manifest, stops: list[int], config: dict | None = None, out: str = "out") -> Manifest:
    """Train with an interruption after each number of steps in `stops`, then to the end."""
    output = Path(out) / "manifest.json"
    output.parent.mkdir(exist_ok=True)
    for count in stops:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "Stop", lambda minutes, count=count: After(count))
            with pytest.raises(TryAgain, match="the next attempt goes on"):
                train.run(config or tiny_run(), RUNTIME, output, data)
    train.run(config or tiny_run(), RUNTIME, output, data)
    return Manifest.load(output)


PFGM = {
    "objective": {"name": "pfgmpp", "augment": 0.5},
    "diffusion": {"path": "pfgm", "prediction": "edm"},
    "network": {"name": "songunet", "embedding": "fourier", "encoder": "residual", "augment": True},
    "training": {"ema_halflife_images": 64},
}
FLIP = {"training": {"flip": True}}
DROP = {**FLIP, "network": {"dropout": 0.3}}
CHANGES = {
    "flip": FLIP,
    "dropout": DROP,
    "pfgm": PFGM,
    "consistent-dm": {**DROP, "objective": {"name": "consistent-dm"}},
    "consistent-dm as released": {
        **PFGM,
        "objective": {"name": "consistent-dm", "augment": 0.5, "chains_told": False},
        "diffusion": {"path": "edm", "prediction": "edm"},
    },
    "fp-diffusion": {**DROP, "objective": {"name": "fp-diffusion"}},
    "averages and snapshots": {
        "training": {"averages": {"short": {"decay": 0.5}, "raw": {"decay": 0.0}}, "snapshots": [0.2, 0.5]}
    },
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tiny_data: Manifest, tmp_path: Path, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU; a GPU's convolutions add in an order of their own."""
    monkeypatch.setattr(train.device, "pick", lambda: torch.device("cpu"))
    config = tiny_run(**changes)
    straight = fit(tiny_data, [], config)
    Path(straight.folder).rename(tmp_path / "straight")
    broken = fit(tiny_data, [3, 4, 2], config)
    assert broken.files == straight.files
    costs, whole = (json.loads((f / "costs.json").read_text()) for f in (Path(broken.folder), tmp_path / "straight"))
    assert costs["network_calls"] == whole["network_calls"]
    assert costs["segments"] == 4
    assert 0 < 12 * costs["step_cpu_seconds"] < 2 * costs["cpu_seconds"]
    assert 0 < 12 * costs["step_seconds"] < 2 * costs["seconds"]


def test_steps_that_a_kill_has_taken_are_counted(tiny_data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped and saved after 5 steps; the next job dies at once, when its lease said 9; a third one ends."""
    monkeypatch.setattr(train, "Stop", lambda minutes: After(5))
    Path("out").mkdir()
    with pytest.raises(TryAgain, match="after step 5"):
        train.run(tiny_run(), RUNTIME, Path("out/manifest.json"), tiny_data)
    (folder,) = STORE.glob("train-*")
    holder = holder_here(2**22 + 1, step=9)
    (folder / "lease.json").write_text(json.dumps(holder))
    monkeypatch.setattr(train, "Stop", lambda minutes: After(1000))
    train.run(tiny_run(), RUNTIME, Path("out/manifest.json"), tiny_data)
    costs = json.loads((folder / "costs.json").read_text())
    assert (costs["segments"], costs["lost_steps"]) == (2, 4)
    assert [(one["start"], one["end"]) for one in costs["runs"]] == [(0, 9), (5, 12)]
    assert "segments.jsonl" not in Manifest.load("out/manifest.json").files


def test_windows_of_all_segments_count(tiny_data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the log every 5 steps: windows of 5, of 2 after the stop at 8, and of 2."""
    clocks = []
    finish = train._finish
    monkeypatch.setattr(train, "_finish", lambda trainer, store: clocks.append(trainer.clock) or finish(trainer, store))
    fit(tiny_data, [8])
    assert len(clocks[0].windows) == 3


def test_a_training_that_goes_on_elsewhere_says_so(tiny_data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one device until a stop after 4 of 12 steps, on another then: the snapshot at 2 is of the first alone."""
    config = tiny_run(training={"snapshots": [0.2, 0.5]})
    stop = train.Stop
    monkeypatch.setattr(costs_of_jobs, "_device", lambda: ("A", None))
    monkeypatch.setattr(train, "Stop", lambda minutes: After(4))
    with pytest.raises(TryAgain):
        train.run(config, RUNTIME, Path("m.json"), tiny_data)
    monkeypatch.setattr(costs_of_jobs, "_device", lambda: ("B", None))
    monkeypatch.setattr(train, "Stop", stop)
    train.run(config, RUNTIME, Path("m.json"), tiny_data)
    found = json.loads((Path(Manifest.load("m.json").folder) / "costs.json").read_text())
    assert [(one["step"], one["device"]) for one in found["snapshots"]] == [(2, "A"), (6, "A + B"), (12, "A + B")]
    assert (found["device"], found["gpu_seconds"]) == ("A + B", found["snapshots"][-1]["seconds"])


@pytest.mark.parametrize("forgetful", [False, True])
def test_times_by_loss_resume_with_their_history(
    tiny_data: Manifest, tmp_path: Path, forgetful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes when all ten losses at every t have been seen; without them t would be another one."""
    monkeypatch.setattr(train.device, "pick", lambda: torch.device("cpu"))
    config = tiny_run(
        objective={"name": "adm-ip", "gamma": 0.1},
        diffusion={"learned_variance": True},
        network={"name": "adm", "dropout": 0.3},
        training={"steps": 16},
    )
    straight = fit(tiny_data, [], config)
    Path(straight.folder).rename(tmp_path / "straight")
    if forgetful:
        monkeypatch.setattr(adm.ADM, "load", lambda self, state: None)
    broken = fit(tiny_data, [12], config)
    weights = "weights.safetensors"
    assert (broken.files[weights] == straight.files[weights]) is not forgetful


def test_a_finished_training_is_found_not_repeated(tiny_data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(tiny_data, [], out="one")
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("trained again"))
    assert fit(tiny_data, [], out="two") == first


def test_checkpoints_are_gone_when_the_training_is_done(tiny_data: Manifest) -> None:
    assert list(Path(fit(tiny_data, [5]).folder).glob("checkpoint*")) == []


def test_a_changed_value_trains_anew_beside_the_old(tiny_data: Manifest) -> None:
    first = fit(tiny_data, [])
    other = fit(tiny_data, [], tiny_run(training={"lr": 2e-3}))
    assert other.folder != first.folder
    assert other.files["weights.safetensors"] != first.files["weights.safetensors"]
    assert fit(tiny_data, []) == first


@pytest.mark.parametrize("damage", [b"", b"cut short"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: bytes) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"done": 1})
    checkpoints.save({"done": 2})
    assert checkpoints.load("cpu") == {"done": 2}
    checkpoints.newest.write_bytes(damage or checkpoints.newest.read_bytes()[:-200])
    assert checkpoints.load("cpu") == {"done": 1}
    checkpoints.previous.write_bytes(b"cut too")
    with pytest.raises(BadData, match="cannot be read; move the folder aside"):
        checkpoints.load("cpu")


def test_whatever_is_wrong_with_the_bytes_is_damage(tmp_path: Path) -> None:
    """Cut at any place, and with noise in the part that is a pickle, which raises nearly anything."""
    checkpoints, rng = Checkpoints(tmp_path), random.Random(0)
    checkpoints.save({"done": 1, "rows": [{"step": 1.0}] * 5, "weights": torch.zeros(30)})
    good = checkpoints.newest.read_bytes()
    checkpoints.save({"done": 2})
    for trial in range(200):
        start = rng.randrange(1000)
        noise = good[:start] + rng.randbytes(40) + good[start + 40 :]
        checkpoints.newest.write_bytes(noise if trial % 2 else good[: rng.randrange(len(good))])
        assert checkpoints.load("cpu")["done"] == 1, trial


FAULTS = {
    "a file server that is gone": OSError(errno.ESTALE, "Stale file handle"),
    "a disk that cannot read": OSError(errno.EIO, "Input/output error"),
    "memory": MemoryError(),
    "memory of the GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "a GPU that is lost": torch.AcceleratorError("CUDA error: the launch timed out and was terminated"),
    "memory, as torch says it": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"),
    "no GPU": RuntimeError("Attempting to deserialize object on CUDA device 0 but torch.cuda.device_count() is 0."),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_checkpoint_that_cannot_be_read_now_is_not_damaged(
    tmp_path: Path, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is the one before taken, which would lose steps, nor is anybody told to train anew."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"done": 1})
    checkpoints.save({"done": 2})

    def fail(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(torch, "load", fail)
        with pytest.raises(TryAgain if isinstance(fault, OSError) else type(fault)):
            checkpoints.load("cpu")
    assert checkpoints.load("cpu") == {"done": 2}


def test_a_read_error_inside_torch_is_one_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"done": 1, "weights": torch.zeros(1000)})

    class Failing(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        read = readinto

    content = checkpoints.newest.read_bytes()
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(content))
    with pytest.raises(TryAgain, match=r"could not be read now .*Input/output error.*; it is kept"):
        checkpoints.load("cpu")


def test_a_write_that_is_killed_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"done": 1})
    original = torch.save

    def killed(state: dict, stream: object) -> None:
        original({"half": torch.zeros(1)}, stream)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save({"done": 2})
    assert checkpoints.load("cpu") == {"done": 1}


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """A limit on the file size stands for the disk: the write fails in the middle."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"done": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(TryAgain, match="the disk is full"):
            checkpoints.save({"done": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.load("cpu") == {"done": 1}


def test_a_second_trainer_leaves_the_first_alone(tmp_path: Path) -> None:
    with Lease(tmp_path), pytest.raises(TryAgain, match=f"process {os.getpid()} on {socket.gethostname()}"):
        Lease(tmp_path).__enter__()
    with Lease(tmp_path):
        pass


def holder_here(pid: int, **other: object) -> dict[str, object]:
    """What a trainer with this process number wrote on this machine; one that runs no more began at some time."""
    about = {"job": "1", "host": socket.gethostname(), "pid": pid, "token": "other", "step": 3, **lease.process(pid)}
    return {**about, "started": about["started"] or "77", **other}


@pytest.mark.parametrize("dead", ["pid", "heartbeat"])
def test_a_dead_lease_is_taken_over(tmp_path: Path, dead: str) -> None:
    holder = holder_here(2**22 + 1 if dead == "pid" else os.getpid())
    (tmp_path / "lease.json").write_text(json.dumps(holder))
    if dead == "heartbeat":
        os.utime(tmp_path / "lease.json", (time.time() - 130,) * 2)
    with Lease(tmp_path) as new:
        assert json.loads((tmp_path / "lease.json").read_text())["token"] == new.token
    assert not (tmp_path / "lease.json").exists()


@pytest.mark.parametrize("other", ["boot", "namespace"])
def test_a_process_number_says_nothing_where_it_is_another_ones(tmp_path: Path, other: str) -> None:
    """A host of the same name, or a container here: nothing but its heartbeat tells whether its trainer lives."""
    (tmp_path / "lease.json").write_text(json.dumps(holder_here(2**22 + 1, **{other: "another"})))
    with pytest.raises(TryAgain, match="another trainer"):
        Lease(tmp_path).take()
    os.utime(tmp_path / "lease.json", (time.time() - 130,) * 2)
    Lease(tmp_path).take()


def test_a_number_that_another_process_has_now_is_no_trainer(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text(json.dumps(holder_here(os.getpid())))
    with pytest.raises(TryAgain, match="another trainer"):
        Lease(tmp_path).take()
    (tmp_path / "lease.json").write_text(json.dumps(holder_here(os.getpid(), started="77")))
    Lease(tmp_path).take()


def test_a_trainer_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    """A zombie keeps its number."""
    trainer = subprocess.Popen(["sleep", "60"])
    (tmp_path / "lease.json").write_text(json.dumps(holder_here(trainer.pid)))
    assert not lease.holder_of(tmp_path).dead
    trainer.kill()
    os.waitid(os.P_PID, trainer.pid, os.WEXITED | os.WNOWAIT)
    assert lease.holder_of(tmp_path).dead
    trainer.wait()


def test_a_process_of_another_user_whom_proc_hides_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option hidepid of /proc: signals still tell that there is such a process."""
    (tmp_path / "lease.json").write_text(json.dumps(holder_here(2**22 + 1)))
    assert lease.holder_of(tmp_path).dead

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not lease.holder_of(tmp_path).dead


def test_the_heartbeat_goes_on(tmp_path: Path) -> None:
    with Lease(tmp_path, beat=0.02):
        first = (tmp_path / "lease.json").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / "lease.json").stat().st_mtime_ns > first


def test_a_holder_that_was_replaced_notices_and_leaves_the_new_lease(tmp_path: Path) -> None:
    with Lease(tmp_path, beat=0.02) as old:
        other = {"job": "2", "host": "elsewhere", "pid": 1, "token": "new", "step": 0}
        (tmp_path / "lease.json").write_text(json.dumps(other))
        time.sleep(0.2)
        assert old.lost
    assert json.loads((tmp_path / "lease.json").read_text()) == other


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_silence_of_the_file_system_is_neither_a_free_lease_nor_a_lost_one(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def silent(path: Path, *how: object) -> str:
        if path.name == "lease.json":
            raise OSError(code, os.strerror(code))
        return read(path, *how)

    with Lease(tmp_path, beat=0.02) as held:
        content = (tmp_path / "lease.json").read_text()
        with monkeypatch.context() as broken:
            broken.setattr(Path, "read_text", silent)
            with pytest.raises(OSError, match=os.strerror(code)):
                Lease(tmp_path).take()
            with pytest.raises(OSError, match=os.strerror(code)):
                held.confirm()
            assert lease.holder_of(tmp_path) is None
            time.sleep(0.1)
        assert (tmp_path / "lease.json").read_text() == content
        held.confirm()
        assert not held.lost


def takes_over(folder: Path) -> dict[str, object]:
    """What another trainer leaves that took the folder while this one stood still: its lease and its checkpoint."""
    (folder / "lease.json").write_text(json.dumps({"job": "2", "host": "far", "pid": 1, "token": "new", "step": 99}))
    newer = {"done": 99}
    Checkpoints(folder).save(newer)
    return newer


@pytest.mark.parametrize("moment", ["before", "while it writes"])
def test_who_stood_still_writes_nothing_over_the_newer_checkpoint(
    tiny_data: Manifest, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes and goes on before its heartbeat, ten seconds apart, has noticed; or it stood still in the writing."""
    trainer = trainer_of(tiny_data, 0)
    with Lease(trainer.folder, beat=60) as held:
        trainer.confirm = held.confirm
        trainer.save()
        if moment == "before":
            newer = takes_over(trainer.folder)
        else:
            newer, write = {}, torch.save

            def stands_still(state: dict, stream: object) -> None:
                monkeypatch.setattr(torch, "save", write)
                write(state, stream)
                newer.update(takes_over(trainer.folder))

            monkeypatch.setattr(torch, "save", stands_still)
        with pytest.raises(TryAgain, match="another trainer took over folder while this one stood still"):
            trainer.save()
    assert trainer.checkpoints.load("cpu") == newer


@pytest.mark.parametrize("writes", ["keep", "history", "finish"])
def test_who_stood_still_writes_no_weights_and_no_history(
    tiny_data: Manifest, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the manifest, with hashes, of whoever ends the training."""
    trainer = trainer_of(tiny_data, 0)
    with Lease(trainer.folder, beat=60) as held:
        trainer.confirm = held.confirm
        takes_over(trainer.folder)
        there = set(trainer.folder.rglob("*"))
        write = {"keep": trainer.keep, "history": trainer.save, "finish": lambda: train._finish(trainer, None)}
        with pytest.raises(TryAgain, match="took over"):
            write[writes]()
    assert set(trainer.folder.rglob("*")) == there


def test_a_training_that_ends_under_another_ones_lease_records_nothing(
    tiny_data: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still while the last grid is drawn: what lies there is the other's by then."""
    monkeypatch.setattr(Trainer, "grid", lambda self, path: takes_over(self.folder))
    Path("out").mkdir()
    with pytest.raises(TryAgain, match="took over"):
        train.run(tiny_run(), RUNTIME, Path("out/manifest.json"), tiny_data)
    assert not list(STORE.glob("train-*/manifest.json"))


def test_asking_renews_the_lease(tmp_path: Path) -> None:
    """After a long stand the heartbeat is old, so anybody could take the folder during what is written next."""
    with Lease(tmp_path, beat=60) as held:
        os.utime(tmp_path / "lease.json", (time.time() - 130,) * 2)
        held.confirm()
        assert not lease.holder_of(tmp_path).dead


def test_an_equal_training_waits_and_then_finds_the_result(tiny_data: Manifest) -> None:
    """Two jobs of one experiment may have equal configurations: one trains, the other waits for it."""
    config = write_config(Path("run/config.json"), "train", tiny_run(training={"steps": 300}), RUNTIME)
    jobs = [subprocess.Popen(command(config, tiny_data), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], texts
    assert sum("training: 300/300 steps" in text for text in texts) == 1


def test_masks_of_dropout_differ_between_seeds_and_steps(tiny_data: Manifest) -> None:
    masks = {}
    for seed in (0, 1, 20_240_501):
        trainer = trainer_of(tiny_data, seed)
        for step in range(2):
            trainer.step()
            masks[seed, step] = tuple(torch.rand(4).tolist())  # what comes after the masks of this step
    assert len(set(masks.values())) == len(masks)


def trainer_of(data: Manifest, seed: int) -> Trainer:
    values = {k: v for k, v in tiny_run(network={"dropout": 0.3}).items() if k != "seed"}
    run = Run.model_validate(values)
    return Trainer(run, train.objective(run), Prepared(data), seed, Path("folder"), torch.device("cpu"))


def test_weights_that_are_not_finite_never_enter_a_checkpoint(tiny_data: Manifest) -> None:
    trainer = trainer_of(tiny_data, 0)
    with torch.no_grad():
        next(trainer.denoiser.parameters())[0] = float("nan")
    with pytest.raises(BadConfig, match="a weight is not finite"):
        trainer.save()
    assert not trainer.checkpoints.newest.exists()


def test_grids_are_drawn_at_their_interval(tiny_data: Manifest) -> None:
    Path("out").mkdir()
    train.run(tiny_run(), {**RUNTIME, "grid_every": 5}, Path("out/manifest.json"), tiny_data)
    folder = Path(Manifest.load("out/manifest.json").folder)
    assert sorted(p.name for p in (folder / "grids").iterdir()) == ["step-0000005.png", "step-0000010.png"]


def test_the_budget_keeps_time_for_the_last_checkpoint() -> None:
    assert Stop(60 * 24).deadline == pytest.approx(time.monotonic() + 86400 - 180, abs=1)
    assert Stop(1).deadline == pytest.approx(time.monotonic() + 54, abs=1)
    assert Stop(0).reason() == "the time limit is near"
    assert Stop(None).reason() is None


@pytest.mark.parametrize(
    ("told", "limit", "minutes"),
    [("1:30", 2, 1.3), ("59:00", 60, 56), ("11:50:00", 720, 707), ("1-00:00:00", 720, 717), ("UNLIMITED", 720, 717)],
)
def test_the_budget_ends_with_the_job_however_late_the_process_began(
    told: str, limit: float, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue says what is left of it; a tenth of the limit, at most three minutes, is kept for the checkpoint."""
    Path("squeue").write_text(f"#!/bin/sh\necho {told}\n")
    Path("squeue").chmod(0o755)
    monkeypatch.setenv("PATH", ".", prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert Stop(limit).deadline == pytest.approx(time.monotonic() + 60 * minutes, abs=2)


def command(config: Path, data: Manifest, *more: str) -> list[str]:
    data.save(Path("data.json"))
    arguments = ["--config", str(config), "--data", "data.json", "--output", "run/manifest.json", *more]
    return [sys.executable, "-m", "pipeline_lib", "train", *arguments]


def test_sigterm_ends_with_75_and_the_next_attempt_ends_the_work(tiny_data: Manifest) -> None:
    config = write_config(Path("run/config.json"), "train", tiny_run(training={"steps": 200}), RUNTIME)
    job = subprocess.Popen(command(config, tiny_data), stderr=subprocess.PIPE, text=True)
    folder = STORE
    for _ in range(600):
        if any(folder.glob("train-*/lease.json")):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    job.send_signal(signal.SIGTERM)
    _, text = job.communicate(timeout=60)
    assert job.returncode == 75, text
    assert "SIGTERM was received; the next attempt goes on" in text
    again = subprocess.run(command(config, tiny_data, "--attempt", "2"), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stderr
    assert Manifest.load("run/manifest.json").facts["steps"] == 200


def test_a_budget_that_is_over_ends_with_75_and_the_retry_goes_on(tiny_data: Manifest) -> None:
    config = write_config(Path("run/config.json"), "train", tiny_run(training={"steps": 20}), RUNTIME)
    arguments = command(config, tiny_data, "--max-minutes", "0")
    over = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert over.returncode == 75, over.stderr
    assert "stopped after step 1 of 20 because the time limit is near; the next attempt goes on" in over.stderr
    again = subprocess.run(command(config, tiny_data, "--attempt", "2"), capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "going on after step 1" in again.stderr


def test_a_permanent_failure_is_not_tried_again(tiny_data: Manifest) -> None:
    config = write_config(Path("run/config.json"), "train", tiny_run(training={"batch_size": 64}), RUNTIME)
    first = subprocess.run(command(config, tiny_data), capture_output=True, text=True, check=False)
    assert first.returncode == 78
    sentence = "training.batch_size is 64, but the dataset has only 48 training images."
    assert sentence in first.stderr
    assert "Traceback" not in first.stderr
    start = time.monotonic()
    second = subprocess.run(command(config, tiny_data, "--attempt", "2"), capture_output=True, text=True, check=False)
    assert (second.returncode, sentence in second.stderr) == (78, True)
    assert time.monotonic() - start < 2  # torch was not even imported
    write_config(config, "train", tiny_run(), RUNTIME)  # mended: the marker does not hold it back
    assert subprocess.run(command(config, tiny_data, "--attempt", "2"), check=False).returncode == 0


def test_a_diverging_loss_ends_in_one_sentence(tiny_data: Manifest, tmp_path: Path) -> None:
    config = tiny_run(training={"lr": 1e18, "grad_clip": None, "warmup_steps": 0})
    with pytest.raises(BadConfig, match=r"not finite by step \d+: the training diverged; lower training.lr"):
        train.run(config, RUNTIME, tmp_path / "manifest.json", tiny_data)
