"""What SLURM says of one job, where silence is not taken for an answer."""

import subprocess
from typing import NamedTuple

ASKED = 60  # seconds that squeue may take
ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT".split()  # noqa: SIM905
)


class NoAnswer(Exception):
    """SLURM did not say whether it knows a job; the text is why."""


class Job(NamedTuple):
    """A job, ended or not."""

    state: str
    name: str  # that of the Snakemake that submitted it; numbers are used again, these names are not


def job(number: str) -> Job | None:
    """What squeue knows of a job; None where it knows none of that number. Raises NoAnswer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T|%j", "--jobs", number]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKED)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from None
    if done.returncode and "Invalid job id" not in done.stderr:
        raise NoAnswer(" ".join(done.stderr.split()) or f"squeue ended with {done.returncode}")
    first = done.stdout.strip().partition("\n")[0]
    return Job(*first.split("|", 1)) if first else None
