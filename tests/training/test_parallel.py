"""Data parallelism: 1, 2 and 4 processes (gloo, CPU) train the same, resume each other, and stop together."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline_lib import launch, parallel
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.records import tables
from pipeline_lib.records.store import STORE, Manifest
from tests.conftest import RUNTIME, tiny_data, tiny_run, write_config
from tests.training.parallel_cases import CASES, ROUNDING
from tests.training.parallel_driver import ranked, work

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
Made = Callable[[int], Path]


def driven(processes: int, *job: str, cwd: Path = Path()) -> None:
    """Run a job of the driver in so many processes; one is this one. The others are forks of one that knows torch."""
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            work(*job)
        return
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([work.__module__])
    world = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": port()}
    started = [
        forks.Process(target=ranked, args=({**world, "RANK": rank, "LOCAL_RANK": rank}, cwd.absolute(), *job))
        for rank in range(processes)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # of the server, which begins with the first of them
        for one in started:
            one.start()
    for one in started:
        one.join(300)
        one.kill()
    assert [one.exitcode for one in started] == [0] * processes


def port() -> int:
    """A free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Folder where a number of processes has trained all cases, each number once."""
    folders: dict[int, Path] = {}

    def made(processes: int) -> Path:
        if processes not in folders:
            folder = folders[processes] = tmp_path_factory.mktemp(f"world{processes}")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                tiny_data().save("data.json")
                driven(processes, "all")
        return folders[processes]

    return made


def result(folder: Path, name: str) -> tuple[dict[str, np.ndarray], list[tuple[str, float]], dict[str, float]]:
    """Weights, history and costs of a training."""
    store = folder / Manifest.load(folder / f"{name}.json").folder
    history = tables.read(store / "history.parquet", tables.HISTORY)
    rows = list(zip(history.key, history.value, strict=True))
    return load_file(store / "weights.safetensors"), rows, json.loads((store / "costs.json").read_text())


def assert_equal(ours: Path, theirs: Path, name: str) -> None:
    """Two trainings agree but for rounding."""
    (weights, history, costs), (others, told, known) = result(ours, name), result(theirs, name)
    for key in weights:
        assert np.allclose(weights[key], others[key], rtol=0, atol=ROUNDING[name]), key
    assert [key for key, _ in history] == [key for key, _ in told]
    assert np.allclose([value for _, value in history], [value for _, value in told], rtol=1e-3)
    assert costs["network_calls"] == known["network_calls"]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_trains(made: Made, name: str) -> None:
    assert_equal(made(2), made(1), name)
    assert result(made(2), name)[2]["processes"] == 2


def test_four_processes_train_what_one_trains(tmp_path: Path) -> None:
    """Four images for each; after 9 steps another number of processes goes on."""
    tiny_data().save("data.json")
    shutil.copytree(tmp_path, "one")
    driven(1, "stopped", "0", cwd=Path("one"))
    driven(1, "stopped", "5")
    driven(4, "stopped", "7")
    driven(1, "stopped", "0")
    made = Path(Manifest.load("stopped.json").folder) / "weights.safetensors"
    one, broken = load_file("one" / made), load_file(made)
    assert all(np.allclose(broken[key], one[key], rtol=0, atol=ROUNDING["adm by loss"]) for key in one)
    costs = json.loads((made.parent / "costs.json").read_text())
    assert [one["processes"] for one in costs["runs"]] == [1, 4, 1]


def test_what_processes_tell_each_other() -> None:
    driven(3, "sums")


def test_weights_that_drift_apart_end_the_training() -> None:
    tiny_data().save("data.json")
    driven(2, "drifting")
    assert [Path(f"drifted-{rank}.txt").read_text() for rank in (0, 1)] == [
        "the weights of the processes differ after step 5."
    ] * 2


def test_samples_do_not_depend_on_the_number_of_processes(made: Made) -> None:
    """Bit by bit, since blocks of 16 are drawn as wholes; the last is short, and a process may be left without one."""
    drawn = []
    for processes in (1, 2):
        shutil.copytree(made(1), str(processes))
        driven(processes, "sampled", "40", "20", cwd=Path(str(processes)))
        manifests = [Manifest.load(f"{processes}/{images}.json") for images in (40, 20)]
        drawn.append([(m.files, m.facts) for m in manifests])
    assert drawn[0] == drawn[1]
    assert drawn[0][0][1]["cells"][0]["calls"] == 2


def command(*more: str, **training: object) -> list[str]:
    """The train stage as the workflow calls it."""
    tiny_data().save("data.json")
    config = write_config(Path("run/config.json"), "train", tiny_run(training=training), RUNTIME)
    arguments = ["--config", str(config), "--data", "data.json", "--output", "run/manifest.json", *more]
    return [sys.executable, "-m", "pipeline_lib", "train", *arguments]


def test_sigterm_stops_all_and_one_process_goes_on() -> None:
    arguments = command("--processes", "2", steps=3000)
    job = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    for _ in range(600):
        if any(STORE.glob("train-*/lease.json")):
            break
        time.sleep(0.05)
    time.sleep(1)
    job.send_signal(signal.SIGTERM)
    _, text = job.communicate(timeout=60)
    assert job.returncode == 75, text
    assert "SIGTERM was received; the next attempt goes on" in text
    assert not any(STORE.glob("train-*/lease.json"))
    assert any(STORE.glob("train-*/checkpoint.pt"))
    over = subprocess.run([*arguments[:-2], "--max-minutes", "0"], capture_output=True, text=True, check=False)
    assert "going on after step" in over.stderr
    assert over.returncode == 75


def test_a_batch_that_cannot_be_shared_ends_with_78_and_a_marker() -> None:
    done = subprocess.run(command("--processes", "3"), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 78, done.stderr
    assert "batch_size is 16, which 3 processes cannot share evenly" in done.stderr
    assert json.loads(Path("run/failed.json").read_text())["code"] == 78


def test_two_nodes_meet_and_train_once() -> None:
    """Two launchers on this host, as srun starts one on every node."""
    place = {**ENVIRONMENT, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port()), "SLURM_JOB_ID": "7"}
    place["SLURM_STEP_NUM_TASKS"] = "2"  # so each is one of the tasks of a step
    arguments = command("--processes", "2", "--nodes", "2", "--attempt", "2")
    nodes = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=place) for _ in range(2)]
    texts = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], texts
    assert sum("2 processes work together" in text for text in texts) == 1
    assert sum("training: 12/12 steps" in text for text in texts) == 1
    assert Manifest.load("run/manifest.json").facts["steps"] == 12


def test_in_a_slurm_job_srun_starts_one_launcher_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for srun notes how it is called, and ends as the steps do."""
    Path("bin").mkdir()
    Path("bin/srun").write_text('#!/bin/sh\necho "$@" > called\nexit 75\n')
    Path("bin/srun").chmod(0o755)
    place = {**ENVIRONMENT, "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    place["SLURM_STEP_NUM_TASKS"] = "1"  # the step in which Snakemake runs the rule
    arguments = command("--processes", "4", "--nodes", "2")
    assert subprocess.run(arguments, env=place).returncode == 75
    called = Path("called").read_text()
    assert "--overlap" in called
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in called
    assert " ".join(arguments) in called


def test_where_nodes_meet(tmp_path: Path) -> None:
    slurm = {"SLURM_JOB_ID": "40123", "MASTER_ADDR": "node7"}
    assert launch.meeting(2, slurm) == ("pipeline-40123", "node7:20123")
    assert launch.meeting(2, {**slurm, "MASTER_PORT": "29500"})[1] == "node7:29500"
    assert launch.meeting(1, {})[1] == "localhost:0"
    with pytest.raises(BadConfig, match="several nodes need a place to meet"):
        launch.meeting(2, {})


def test_the_code_of_a_job_is_that_of_the_failure_that_ended_it() -> None:
    """The others are told to leave, and say 75 whatever ended the first; a broken GPU is no permanent failure."""
    assert launch.exit_code([75, 78]) == 78
    assert launch.exit_code([75, 70]) == 70
    assert launch.exit_code([70, 78, 75]) == 78
    assert launch.exit_code([75, -15]) == 75
    assert launch.exit_code([-9]) == 137
    assert launch.exit_code([1]) == 1


def test_an_error_of_the_own_gpu_is_not_told_of_another_process() -> None:
    """CUDA may tell of it in the exchange, many lines after the kernel that went wrong."""
    own = torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
    with pytest.raises(torch.AcceleratorError), parallel._together():
        raise own
    with pytest.raises(TryAgain, match="another process of this job has left"), parallel._together():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4242")


def test_processes_that_do_not_fill_the_nodes_are_refused() -> None:
    with pytest.raises(BadConfig, match="3 processes cannot be spread evenly over 2 nodes"):
        launch.wanted(3, 2)


def test_weights_are_added_up_as_they_lie() -> None:
    """One piece of memory for each, whatever the order of its dimensions; never a copy that the sum would miss."""
    for shape in ((3, 4, 2, 2), (4, 3, 1, 1), (1, 5, 2, 2)):
        x = torch.randn(shape).to(memory_format=torch.channels_last)
        (row,) = parallel.as_they_lie(x)
        assert row.is_contiguous()
        assert row.data_ptr() == x.data_ptr()
        assert torch.equal(row.sort().values, x.flatten().sort().values)
    assert parallel.as_they_lie(torch.tensor(2.0))[0].tolist() == [2.0]
    with pytest.raises(RuntimeError):
        parallel.as_they_lie(torch.randn(4, 4)[:, :2])


def test_what_lies_otherwise_than_the_first_is_refused() -> None:
    x = torch.randn(3, 4, 2, 2)
    other = x.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError):
        parallel.as_they_lie(x, other)
    narrow = torch.randn(3, 4, 1, 1)  # the strides of dimensions of one element mean nothing
    one, two = parallel.as_they_lie(narrow, narrow.to(memory_format=torch.channels_last))
    assert torch.equal(one, two)
