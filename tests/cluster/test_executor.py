"""What is submitted and what is told of it. On a real cluster: tests/slurm."""

import errno
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake.iocontainers import ResourceList
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from pipeline_lib.cluster import executor as module
from pipeline_lib.cluster import squeue
from pipeline_lib.cluster.executor import Executor, install
from pipeline_lib.cluster.squeue import Job, NoAnswer


class Head(Executor):
    """An executor without a workflow, which notes what it tells."""

    def __init__(self) -> None:
        self.logger, self.run_uuid, self.starved = logging.getLogger(), "mine_1", {}
        self._main_event_loop = None
        self.submitted: list[dict[str, Any]] = []  # resources
        self.failed: list[tuple[int, str]] = []  # attempt that the job is at, and the message

    def fail(self, info: Any, msg: str = "") -> None:
        self.failed.append((info.job.attempt, msg))


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: self.submitted.append(asked(job)))
    monkeypatch.setattr(RemoteExecutor, "report_job_submission", lambda self, info, register_job: None)
    monkeypatch.setattr(RemoteExecutor, "report_job_error", lambda self, *told, **more: self.fail(*told, **more))
    monkeypatch.setattr(squeue, "job", lambda number: None)
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    Path("run").mkdir()
    return Head()


def asked(job: Any) -> dict[str, Any]:
    """Resources as the plugin reads them."""
    return {name: value for name in ("slurm_extra", "mem_mb") if (value := job.resources.get(name)) is not None}


def a_job(attempt: int = 1, **resources: Any) -> SimpleNamespace:
    given = ResourceList(list(resources.values()))
    for place, name in enumerate(resources):
        given._set_name(name, place)
    return SimpleNamespace(jobid=1, output=["run/manifest.json"], attempt=attempt, restart_times=20, resources=given)


def test_snakemake_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = ExecutorPluginRegistry().get_plugin("slurm")
    monkeypatch.setattr(registered, "executor", registered.executor)
    monkeypatch.setattr(plugin, "query_job_status", plugin.query_job_status)
    install("cifar10")
    assert ExecutorPluginRegistry().get_plugin("slurm").executor is Executor
    assert "query_job_status" in plugin.Executor.check_active_jobs.__code__.co_names  # where the plugin asks


@pytest.mark.parametrize(("marked", "attempt"), [(True, 21), (False, 1)])
def test_a_permanent_failure_has_used_up_its_attempts(marked: bool, attempt: int, head: Head) -> None:
    if marked:
        Path("run/failed.json").touch()
    head.report_job_error(SimpleNamespace(job=a_job(), aux={}), msg="")
    assert head.failed == [(attempt, "")]


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize(
    ("known", "extra"),
    [
        (Job("RUNNING", "mine_1"), "--qos=long --dependency=afterany:7"),
        (Job("COMPLETING", "mine_1"), "--qos=long --dependency=afterany:7"),
        (Job("TIMEOUT", "mine_1"), "--qos=long"),
        (Job("RUNNING", "another"), "--qos=long"),  # the number is used again
        (None, "--qos=long"),
    ],
)
def test_a_job_starts_after_an_older_one_of_its_output(
    known: Job | None, extra: str, attempt: int, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run/failed.json").touch()
    head._report_job_submission_threadsafe(SimpleNamespace(job=a_job(), external_jobid="7"))
    monkeypatch.setattr(squeue, "job", {"7": known}.get)
    head.run_job(a_job(attempt, slurm_extra="--qos=long"))
    assert head.submitted == [{"slurm_extra": extra}]
    assert Path("run/failed.json").exists() is (attempt > 1)


def test_silence_of_slurm_is_not_the_end_of_an_older_job(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run/slurm-job.txt").write_text("7")
    answers = iter([NoAnswer("down"), NoAnswer("down"), Job("PENDING", "x"), *[NoAnswer("down")] * 3])

    def job(number: str) -> Job:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(squeue, "job", job)
    head.run_job(a_job())
    assert head.submitted == [{"slurm_extra": " --dependency=afterany:7"}]
    head.run_job(a_job())
    assert len(head.submitted) == 1
    ((_, said),) = head.failed
    assert "SLURM does not say whether its job 7, of the same output, has ended (down)" in said


@pytest.mark.parametrize(
    ("stage", "waits"),
    [("train", True), ("ancestral/sample", True), ("ancestral/tune", True), ("ancestral/errors", False)],
)
def test_equal_runs_wait_for_each_other_in_the_queue(
    stage: str, waits: bool, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, whichever was submitted first; what each run measures for itself does not wait."""
    runs = {"results/x/a": ["results/x/b"], "results/x/b": ["results/x/a"]}
    monkeypatch.setattr(Executor, "alike", staticmethod(lambda: runs))
    states = {"7": Job("RUNNING", "mine_1"), "8": Job("PENDING", "mine_1")}
    monkeypatch.setattr(squeue, "job", states.get)

    def one(run: str) -> SimpleNamespace:
        return SimpleNamespace(**{**vars(a_job()), "output": [f"results/x/{run}/{stage}/manifest.json"]})

    for run, number in (("b", "7"), ("a", "8"), ("other", "9")):
        head.run_job(one(run))
        head._report_job_submission_threadsafe(SimpleNamespace(job=one(run), external_jobid=number))
    states["7"] = Job("FAILED", "mine_1")  # its clock: what is submitted next waits for the one that goes on
    head.run_job(one("b"))
    after = [{"slurm_extra": f" --dependency=afterany:{number}"} if waits else {} for number in (7, 8)]
    assert head.submitted == [{}, after[0], {}, after[1]]


def test_the_second_of_two_equal_jobs_sees_the_first(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin submits with two threads: here each asks SLURM for half a second before its number is known."""
    runs = {"results/x/a": ["results/x/b"], "results/x/b": ["results/x/a"]}
    monkeypatch.setattr(Executor, "alike", staticmethod(lambda: runs))
    monkeypatch.setattr(squeue, "job", lambda number: Job("RUNNING", "mine_1"))

    def submit(self: Head, job: Any) -> None:
        self.submitted.append(asked(job))
        time.sleep(0.5)
        self._report_job_submission_threadsafe(SimpleNamespace(job=job, external_jobid=7))

    monkeypatch.setattr(plugin.Executor, "run_job", submit)
    jobs = [SimpleNamespace(**{**vars(a_job()), "output": [f"results/x/{run}/train/manifest.json"]}) for run in "ab"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(head.run_job, jobs))
    assert head.submitted == [{}, {"slurm_extra": " --dependency=afterany:7"}]


def test_what_is_raised_before_a_job_is_submitted_fails_it(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("Disk quota exceeded")

    monkeypatch.setattr(module, "_beside", full)
    head.run_job(a_job())
    assert head.submitted == []
    ((_, said),) = head.failed
    assert "It was not submitted: Disk quota exceeded" in said


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_job_whose_number_cannot_be_written_is_not_lost(
    code: int, head: Head, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    monkeypatch.setattr(RemoteExecutor, "report_job_submission", lambda self, info, register_job: told.append(info))

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", refused)
    monkeypatch.setattr(Head, "ends", module.Ends())
    head._report_job_submission_threadsafe(SimpleNamespace(job=a_job(), external_jobid="7"))
    assert len(told) == 1
    assert list(head.ends.since) == ["7"]
    assert "The number of SLURM job 7 could not be written (" in caplog.text
    assert "cancel this job before you start it again" in caplog.text


@pytest.mark.parametrize("by", ["state", "log"])
def test_a_job_that_ran_out_of_memory_asks_for_twice_as_much(by: str, head: Head) -> None:
    log = Path("7.log")
    log.write_text("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0." if by == "log" else "")
    state = "FAILED" if by == "log" else "OUT_OF_MEMORY"
    for attempt in (1, 2, 3):
        job = a_job(attempt, mem_mb=4000)
        head.run_job(job)
        info = SimpleNamespace(job=job, aux={"slurm_logfile": log})
        head.report_job_error(info, msg=f"SLURM status is: '{state}'.")
        log.write_text("Killed for another reason")
        head.report_job_error(SimpleNamespace(job=a_job(attempt), aux={"slurm_logfile": log}), msg="'TIMEOUT'")
        log.write_text("srun: error: n1: task 0: Out Of Memory" if by == "log" else "")
    assert [one["mem_mb"] for one in head.submitted] == [4000, 8000, 16000]
    assert [attempt for attempt, _ in head.failed] == [1, 1, 2, 2, 21, 3]
    said = [message for _, message in head.failed]
    assert "ran out of memory with 8000 MB and asks for more the next time; raise runtime.memory_mb." in said[2]
    assert "ran out of memory with 16000 MB and is not submitted again; raise runtime.memory_mb." in said[4]


def test_memory_that_grows_with_the_attempts_is_left_alone(head: Head) -> None:
    head.starved["run/manifest.json"] = [4000]
    head.run_job(a_job(3, mem_mb=12000))
    assert head.submitted == [{"mem_mb": 12000}]


def test_the_log_of_a_job_that_is_queued_again_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SBATCH_OPEN_MODE", raising=False)
    monkeypatch.setattr(plugin.Executor, "__post_init__", lambda self, test_mode: None)
    monkeypatch.setattr(module.code, "pin", lambda: None)
    head = Head()
    head.workflow = SimpleNamespace(executor_settings=SimpleNamespace(jobname_prefix=""))
    head.__post_init__()
    assert os.environ["SBATCH_OPEN_MODE"] == "append"
