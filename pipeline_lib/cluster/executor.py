"""The SLURM executor of Snakemake, with four gaps closed.

1. A job in a partition with PreemptMode=CANCEL ends as PREEMPTED, and one that somebody cancels is, to sacct,
   'CANCELLED by 1000'. The plugin (2.8) takes neither for an end and waits for ever; so it does for a job that squeue
   has forgotten. See `Ends`.
2. A permanent failure (bad data, configuration, a bug) is not submitted again: its marker says so.
3. Jobs outlive a Snakemake that is killed. What the next one submits for the same output starts when they have ended.
4. Jobs run the code that was there when Snakemake was started (`cluster.code`).
"""

import re
import subprocess
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
from pipeline_lib.records.files import write_text

SUBMITTED = "slurm-job.txt"  # beside the output: the number of the job that was submitted last
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


class Executor(plugin.Executor):
    """Submits the code as it is now, nothing again that failed for good, and nothing beside an equal job."""

    experiment = ""  # its name begins the names of the jobs, where the profile says no other prefix

    def __post_init__(self, test_mode: bool = False) -> None:
        settings = self.workflow.executor_settings
        settings.jobname_prefix = settings.jobname_prefix or re.sub(r"[^A-Za-z0-9_-]", "-", self.experiment)[:50]
        super().__post_init__(test_mode)
        self.logger.info(f"Jobs run a copy of the code: {code.pin()}")

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job. Its first attempt forgets failures of an earlier Snakemake, and waits for that one's jobs."""
        if job.attempt == 1:
            for marker in _beside(job, MARKER):
                marker.unlink(missing_ok=True)
            if alive := {number for record in _beside(job, SUBMITTED) if (number := _alive(record))}:
                self.logger.info(f"Job {job.jobid} starts after {', '.join(alive)}, of a Snakemake that was killed.")
                given = job.resources.get("slurm_extra") or ""
                job.resources.slurm_extra = f"{given} --dependency=afterany:{':'.join(alive)}"
        super().run_job(job)

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        """Tell Snakemake of a submitted job, and write its number beside its output."""
        for record in _beside(job_info.job, SUBMITTED):
            write_text(record, str(job_info.external_jobid))
        super().report_job_submission(job_info, register_job=register_job)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: Any) -> None:
        """Tell Snakemake of a failed job; a permanent failure has used up its attempts."""
        job = job_info.job
        if any(marker.is_file() for marker in _beside(job, MARKER)):
            job.attempt = job.restart_times + 1
        super().report_job_error(job_info, msg=msg, **more)


def _beside(job: JobExecutorInterface, name: str) -> set[Path]:
    return {Path(file).parent / name for file in job.output}


def _alive(record: Path) -> str | None:
    """The number of the job in a record if it waits or runs."""
    if not record.is_file():
        return None
    number = record.read_text().strip()
    asked = subprocess.run(
        ["squeue", "--noheader", "--format=%i", "--jobs", number], capture_output=True, text=True, check=False
    )
    return number if asked.stdout.strip() else None


def install(experiment: str) -> None:
    """Let Snakemake take this executor where it is told `executor: slurm`."""
    Executor.experiment = experiment
    plugin.query_job_status = translated(plugin.query_job_status)
    ExecutorPluginRegistry().get_plugin("slurm").executor = Executor
