"""The SLURM executor of Snakemake, with three gaps closed.

1. A job in a partition with PreemptMode=CANCEL ends as PREEMPTED, and one that somebody cancels is, to sacct,
   'CANCELLED by 1000'. The plugin (2.8) takes neither for an end and waits for ever; so it does for a job that squeue
   has forgotten. See `Ends`.
2. A permanent failure (bad data, configuration, a bug) is not submitted again: its marker says so.
3. Jobs run the code that was there when Snakemake was started (`cluster.code`).
"""

import re
from collections.abc import Awaitable, Callable
from logging import Logger
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from pipeline_lib.cluster import code
from pipeline_lib.exits import MARKER

States = dict[str, str] | None  # of jobs by their number; None: SLURM did not answer
Query = Callable[[str, Logger], Awaitable[tuple[States, float | None]]]


class Ends:
    """Translates states of jobs so that every end is one that the plugin knows.

    What SLURM itself requeues is PREEMPTED for a moment at most, and then PENDING: only a job that is PREEMPTED at two
    checks in a row has ended. One that was there and is missing at two checks in a row becomes UNKNOWN, which the
    plugin takes for success; Snakemake then looks for the output and fails the job without it.
    """

    def __init__(self) -> None:
        self.before: dict[str, str] = {}

    def translate(self, states: dict[str, str]) -> dict[str, str]:
        """The states as the plugin shall see them."""
        now = {job: state.partition(" ")[0] for job, state in states.items()}  # 'CANCELLED by 1000'
        gone = dict.fromkeys(self.before.keys() - now.keys(), "GONE")
        ended = {job: "CANCELLED" for job, state in now.items() if state == self.before.get(job) == "PREEMPTED"}
        lost = {job: "UNKNOWN" for job in gone if self.before[job] == "GONE"}
        self.before = now | gone
        return now | ended | lost


def translated(query: Query) -> Query:
    """The plugin's query of all states, with `Ends` behind it."""
    ends = Ends()

    async def ask(command: str, logger: Logger) -> tuple[States, float | None]:
        states, seconds = await query(command, logger)
        return states if states is None else ends.translate(states), seconds

    return ask


class Executor(plugin.Executor):  # type: ignore[misc]
    """Submits the code as it is now, and nothing again that failed for good."""

    experiment = ""  # its name begins the names of the jobs, where the profile says no other prefix

    def __post_init__(self, test_mode: bool = False) -> None:
        settings = self.workflow.executor_settings
        settings.jobname_prefix = settings.jobname_prefix or re.sub(r"[^A-Za-z0-9_-]", "-", self.experiment)[:50]
        super().__post_init__(test_mode)
        self.logger.info(f"Jobs run a copy of the code: {code.pin()}")

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job; its first attempt knows of no failure of an earlier Snakemake."""
        if job.attempt == 1:
            for marker in _markers(job):
                marker.unlink(missing_ok=True)
        super().run_job(job)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: Any) -> None:
        """Tell Snakemake of a failed job; a permanent failure has used up its attempts."""
        job = job_info.job
        if any(marker.is_file() for marker in _markers(job)):
            job.attempt = job.restart_times + 1
        super().report_job_error(job_info, msg=msg, **more)


def _markers(job: JobExecutorInterface) -> set[Path]:
    return {Path(file).parent / MARKER for file in job.output}


def install(experiment: str) -> None:
    """Let Snakemake take this executor where it is told `executor: slurm`."""
    Executor.experiment = experiment
    plugin.query_job_status = translated(plugin.query_job_status)
    ExecutorPluginRegistry().get_plugin("slurm").executor = Executor
