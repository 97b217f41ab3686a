"""The SLURM executor of Snakemake, with gaps closed.

1. States from which the plugin (2.8) learns of no end, and would wait for ever: `ends`.
2. Jobs that SLURM holds, or that wait for what will not come: `held`.
3. A permanent failure (bad data, configuration, a bug) is not submitted again: its marker says so.
4. A job that ran out of memory asks for twice as much the next time.
5. Jobs outlive a Snakemake that is killed. What the next one submits for the same output starts when they have ended;
   so does what a run with an equal training would make the same of. It waits in the queue, without a GPU.
6. Jobs run the code that was there when Snakemake was started (`cluster.code`).
7. What is raised before a job is submitted fails that job; the plugin reads no Future, and would wait for ever.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from pipeline_lib.cluster import code, squeue
from pipeline_lib.cluster.ends import Ends, translated
from pipeline_lib.cluster.held import Held, heeding
from pipeline_lib.exits import MARKER, TryAgain
from pipeline_lib.records.files import write_text

SHARED = ("train", "moments", "tune", "sample")  # stages that find in the store what an equal run has made
SUBMITTED = "slurm-job.txt"  # beside the output: number and name of the job that was submitted last
PAUSES = (5, 15, 40)  # seconds between questions that SLURM does not answer
STARVED = re.compile(r"OUT_OF_MEMORY|oom.kill event|Out Of Memory")  # as states, slurmstepd and srun say it
MOST_MEMORY = 4  # times what a job ran out of first; as the rules' own memory grows with their attempts


class Executor(plugin.Executor):
    """Submits the code as it is now, nothing again that failed for good, and nothing beside an equal job."""

    experiment = ""  # its name begins the names of the jobs, where the profile says no other prefix
    ends = Ends()
    alike: Callable[[], Mapping[str, Sequence[str]]] = dict  # folders of runs, by that of one with an equal training
    turn = threading.Lock()  # the plugin submits two jobs at a time; equal ones must see each other

    def __post_init__(self, test_mode: bool = False) -> None:
        settings = self.workflow.executor_settings
        settings.jobname_prefix = settings.jobname_prefix or re.sub(r"[^A-Za-z0-9_-]", "-", self.experiment)[:50]
        super().__post_init__(test_mode)
        os.environ.setdefault("SBATCH_OPEN_MODE", "append")  # else a job that is queued again begins its log anew
        self.starved: dict[str, list[int]] = {}  # output -> MB with which its jobs ran out of memory
        self.logger.info(f"Jobs run a copy of the code: {code.pin()}")

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit a job; what is raised on the way fails it."""
        with self.turn if self._equal(job) else contextlib.nullcontext():
            try:
                self._prepare(job)
            except Exception as error:
                self._report_job_error_threadsafe(SubmittedJobInfo(job), f"It was not submitted: {error}. ")
            else:
                super().run_job(job)

    def _prepare(self, job: JobExecutorInterface) -> None:
        """Forget failures of an earlier Snakemake, wait for jobs that have not ended, and give more memory."""
        if job.attempt == 1:
            for marker in _beside(job, MARKER):
                marker.unlink(missing_ok=True)
        records = _beside(job, SUBMITTED) | self._equal(job)
        if alive := sorted({number for record in records if (number := _alive(record))}):
            older = ", ".join(alive)
            self.logger.info(
                f"Job {job.jobid} starts after SLURM job {older}, of the same output or an equal one, which "
                "has not ended."
            )
            given = job.resources.get("slurm_extra") or ""
            job.resources.slurm_extra = f"{given} --dependency=afterany:{':'.join(alive)}"
        had = self.starved.get(_key(job), [0])[-1]
        if had and job.resources.get("mem_mb", 0) <= had:
            job.resources.mem_mb = 2 * had

    def _equal(self, job: JobExecutorInterface) -> set[Path]:
        """Where the numbers of jobs are that make the same for runs with an equal training."""
        files = [Path(file) for file in job.output if Path(file).parent.name in SHARED]
        known = self.alike() if files else {}
        return {
            other / file.relative_to(run).with_name(SUBMITTED)
            for file in files
            for run in file.parents
            for other in map(Path, known.get(str(run), ()))
        }

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        """Tell Snakemake of a submitted job."""
        super().report_job_submission(job_info, register_job=register_job)
        self.ends.submitted(str(job_info.external_jobid))

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        """Have Snakemake told of a submitted job, and write its number beside its output before the next one's turn."""
        super()._report_job_submission_threadsafe(job_info)
        number = str(job_info.external_jobid)
        try:
            for record in _beside(job_info.job, SUBMITTED):
                write_text(record, f"{number} {self.run_uuid}")
        except (OSError, TryAgain) as error:  # TryAgain: a full disk, or quota
            said = f"The number of SLURM job {number} could not be written ({error}): if Snakemake is killed, cancel "
            self.logger.warning(f"{said}this job before you start it again.")

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **more: Any) -> None:
        """Tell Snakemake of a failed job; a permanent failure has used up its attempts."""
        job = job_info.job
        last = _failed_for_good(job)
        if _starved(job_info, msg or ""):
            said, last = self._more_memory(job, last)
            msg = f"{msg or ''} {said} "
        if last:
            job.attempt = job.restart_times + 1
        super().report_job_error(job_info, msg=msg, **more)

    def _more_memory(self, job: JobExecutorInterface, last: bool) -> tuple[str, bool]:
        """What is said of a job that ran out of memory, and whether it is not submitted again."""
        had = self.starved.setdefault(_key(job), [])
        had.append(job.resources.get("mem_mb", 0))
        last = last or had[-1] >= MOST_MEMORY * had[0]
        goes_on = "is not submitted again" if last else "asks for more the next time"
        return f"It ran out of memory with {had[-1]} MB and {goes_on}; raise runtime.memory_mb.", last


def _key(job: JobExecutorInterface) -> str:
    return min(map(str, job.output), default=str(job.jobid))


def _beside(job: JobExecutorInterface, name: str) -> set[Path]:
    return {Path(file).parent / name for file in job.output}


def _failed_for_good(job: JobExecutorInterface) -> bool:
    with contextlib.suppress(OSError):  # a network file system that does not answer is no failure of the job
        return any(marker.is_file() for marker in _beside(job, MARKER))
    return False


def _starved(job_info: SubmittedJobInfo, message: str) -> bool:
    """Whether a job ran out of memory; where only its step was killed for it, the job's state is FAILED."""
    return bool(STARVED.search(message) or STARVED.search(_end_of((job_info.aux or {}).get("slurm_logfile"))))


def _end_of(log: Path | None) -> str:
    try:
        return log.read_text(errors="replace")[-20000:] if log else ""
    except OSError:
        return ""


def _alive(record: Path) -> str | None:
    """The number of the job in a record if it waits or runs; raises NoAnswer where SLURM does not say."""
    if not record.is_file():
        return None
    number, _, name = record.read_text().strip().partition(" ")
    job = _patiently(number)
    return number if job and job.state not in squeue.ENDED and name in ("", job.name) else None


def _patiently(number: str) -> squeue.Job | None:
    for pause in PAUSES:
        with contextlib.suppress(squeue.NoAnswer):
            return squeue.job(number)
        time.sleep(pause)
    try:
        return squeue.job(number)
    except squeue.NoAnswer as why:
        raise squeue.NoAnswer(
            f"SLURM does not say whether its job {number}, of the same output, has ended ({why})"
        ) from None


def install(experiment: str, alike: Callable[[], Mapping[str, Sequence[str]]] = dict) -> None:
    """Let Snakemake take this executor where it is told `executor: slurm`.

    `alike` says for the folder of a run which folders others with an equal training have; it is asked for jobs alone.
    """
    Executor.experiment = experiment
    Executor.alike = staticmethod(alike)
    Executor.ends = Ends()
    plugin.query_job_status = translated(heeding(plugin.query_job_status, Held()), Executor.ends)
    ExecutorPluginRegistry().get_plugin("slurm").executor = Executor
