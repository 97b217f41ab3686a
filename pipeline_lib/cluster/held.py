"""Jobs that wait for something that will not come: SLURM's own holds are released, the others are told of."""

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from logging import Logger

from pipeline_lib.cluster.ends import Query, States

RELEASES = 3  # of one job, before it is cancelled
ASKED = 60  # seconds that a command may take

# SLURM holds a job that could not be started on a node (a prolog that fails, processes of the same job that are still
# there), or that it has queued again too often. Nobody else releases it.
LAUNCH = "launch failed requeued held"

# Reasons that do not go away while other jobs end, and what to do. Words as `squeue --format=%r` prints them.
HOPELESS = {
    "PartitionTimeLimit": "it asks for more minutes than its partition allows; lower runtime.train_minutes and "
    "runtime.job_minutes, or name another slurm_partition in the profile",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows, or they are down; see runtime.nodes",
    "PartitionDown|PartitionInactive": "its partition is closed; wait, or name another slurm_partition in the profile",
    "BadConstraints": "no node has what it asks for; see constraint in the profile, runtime.memory_mb and "
    "runtime.processes",
    "DependencyNeverSatisfied": "the job that it waits for has ended otherwise; cancel it, and it is submitted again",
    "JobHeldUser|job requeued in .*state.*": "somebody holds it; `scontrol release NUMBER` lets it go on",
    "JobHeldAdmin": "an administrator holds it; ask for its release, or cancel it",
    "InvalidAccount|AccountNotAllowed": "the account may not run there; set slurm_account in the profile",
    "InvalidQOS|QOSNotAllowed|QOSUsageThreshold|QOSMin.*": "its QOS does not allow it; set qos in the profile",
    "(Assoc|QOS)Max.*Per(Job|Node).*|(Association|QOS)(TimeLimit|ResourceLimit)": "it asks for more than a job may "
    "have in your account or QOS; lower runtime.train_minutes, runtime.job_minutes, runtime.memory_mb or "
    "runtime.processes",
    "(Assoc|QOS)Grp(?!.*Run).*Minutes.*": "your account or QOS has used up its hours; set another slurm_account",
}

Act = Callable[..., str]


def command(*words: str) -> str:
    """Why a command of SLURM failed; empty where it did not."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ASKED)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (" ".join(done.stderr.split()) or f"exit code {done.returncode}") if done.returncode else ""


class Held:
    """Heeds the reasons for which jobs wait; says each once."""

    def __init__(self, act: Act = command) -> None:
        self.act = act
        self.released: Counter[str] = Counter()
        self.told: set[tuple[str, str]] = set()

    def heed(self, reasons: dict[str, str], logger: Logger) -> None:
        """Release what can be released, and say of the others what to do, in one sentence a reason."""
        plain = {job: reason.strip("()").replace("_", " ") for job, reason in reasons.items()}
        stuck: dict[str, list[str]] = {}
        for job, reason in plain.items():
            if reason == LAUNCH:
                self._release(job, logger)
            elif (job, reason) not in self.told and advice(reason):
                self.told.add((job, reason))
                stuck.setdefault(reason, []).append(job)
        for reason, jobs in stuck.items():
            who = f"job {jobs[0]} waits" if len(jobs) == 1 else f"jobs {', '.join(jobs)} wait"
            what = advice(reason).replace("NUMBER", ",".join(jobs))
            logger.warning(f"SLURM {who} and may never start ({reason}): {what}.")

    def _release(self, job: str, logger: Logger) -> None:
        self.released[job] += 1
        times = self.released[job]
        if times <= RELEASES:
            does, failed = f"it is released ({times} of {RELEASES})", self.act("scontrol", "release", job)
        else:
            does, failed = f"it is cancelled, having been released {RELEASES} times", self.act("scancel", job)
        logger.warning(f"SLURM could not start job {job} on a node and holds it; {does}{failed and f': {failed}'}.")


def heeding(query: Query, held: Held) -> Query:
    """The plugin's query of all states, after which reasons are asked for where a job may wait."""

    async def ask(question: str, logger: Logger) -> tuple[States, float | None]:
        states, seconds = await query(question, logger)
        name = re.search(r"--name (\S+)", question)
        if name and states and set(states.values()) - {"RUNNING", "COMPLETED"}:
            reasons, _ = await query(f"squeue --name {name[1]} --states=PD --noheader --format='%i|%r'", logger)
            await asyncio.to_thread(held.heed, reasons or {}, logger)
        return states, seconds

    return ask


def advice(reason: str) -> str:
    """What to do about a reason that does not go away; empty where waiting helps."""
    return next((what for names, what in HOPELESS.items() if re.fullmatch(names, reason)), "")
