"""The head sees every end of a job. On a real cluster: tests/slurm."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake.iocontainers import ResourceList
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from pipeline_lib.cluster.executor import Ends, Executor, install, translated


def seen(*checks: dict[str, str]) -> dict[str, str]:
    """What the plugin is told at the last of several checks."""
    ends = Ends()
    return [ends.translate(states) for states in checks][-1]


def test_the_state_of_a_cancelled_job_is_one_word() -> None:
    assert seen({"7": "CANCELLED by 1000"}) == {"7": "CANCELLED"}


def test_preempted_twice_in_a_row_is_an_end() -> None:
    assert seen({"7": "PREEMPTED"}) == {"7": "PREEMPTED"}
    assert seen({"7": "PREEMPTED"}, {"7": "PREEMPTED"}) == {"7": "CANCELLED"}
    assert seen(*[{"7": "PREEMPTED"}] * 3) == {"7": "CANCELLED"}


def test_a_job_that_is_requeued_has_not_ended() -> None:
    assert seen({"7": "PREEMPTED"}, {"7": "PENDING"}, {"7": "RUNNING"}, {"7": "PREEMPTED"}) == {"7": "PREEMPTED"}


def test_a_job_that_slurm_has_forgotten_is_looked_for() -> None:
    """Only after it was seen: sacct learns of a new job after some seconds."""
    assert seen({}, {}) == {}
    assert seen({"7": "RUNNING"}, {}) == {}
    assert seen({"7": "RUNNING"}, {}, {}) == {"7": "UNKNOWN"}
    assert seen({"7": "RUNNING"}, {}, {"7": "RUNNING"}, {}) == {}


def test_no_answer_changes_nothing() -> None:
    answers = iter([{"7": "RUNNING"}, None, None, {"7": "RUNNING"}])

    async def query(command: str, logger: logging.Logger) -> tuple[dict[str, str] | None, float]:
        return next(answers), 0.1

    ask = translated(query)
    told = [asyncio.run(ask("squeue", logging.getLogger()))[0] for _ in range(4)]
    assert told == [{"7": "RUNNING"}, None, None, {"7": "RUNNING"}]


def test_snakemake_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = ExecutorPluginRegistry().get_plugin("slurm")
    monkeypatch.setattr(registered, "executor", registered.executor)
    monkeypatch.setattr(plugin, "query_job_status", plugin.query_job_status)
    install("cifar10")
    assert ExecutorPluginRegistry().get_plugin("slurm").executor is Executor
    assert "query_job_status" in plugin.Executor.check_active_jobs.__code__.co_names  # where the plugin asks


@pytest.mark.parametrize(("marked", "attempt"), [(True, 21), (False, 1)])
def test_a_permanent_failure_has_used_up_its_attempts(
    marked: bool, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(RemoteExecutor, "report_job_error", lambda self, info, **more: told.append(info.job))
    job = SimpleNamespace(output=["run/manifest.json"], attempt=1, restart_times=20)
    if marked:
        Path("run").mkdir()
        Path("run/failed.json").touch()
    Executor.report_job_error(object.__new__(Executor), SimpleNamespace(job=job), msg="")
    assert told == [job]
    assert job.attempt == attempt


@pytest.mark.parametrize(("answer", "extra"), [("7", "--qos=long --dependency=afterany:7"), ("", "--qos=long")])
def test_a_job_starts_after_the_one_of_a_snakemake_that_was_killed(
    answer: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`squeue` says whether it is still there."""
    Path("squeue").write_text(f"#!/bin/sh\necho {answer}\n")
    Path("squeue").chmod(0o755)
    monkeypatch.setenv("PATH", ".", prepend=":")
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: None)
    monkeypatch.setattr(RemoteExecutor, "report_job_submission", lambda self, info, register_job: None)
    job = SimpleNamespace(jobid=1, output=["run/manifest.json"], attempt=1, resources=ResourceList(["--qos=long"]))
    job.resources._add_name("slurm_extra")
    Path("run").mkdir()
    Path("run/failed.json").touch()
    killed, started = (object.__new__(Executor) for _ in range(2))
    killed.report_job_submission(SimpleNamespace(job=job, external_jobid="7"))
    started.logger = logging.getLogger()
    started.run_job(job)
    assert job.resources.get("slurm_extra") == extra
    assert not Path("run/failed.json").exists()
