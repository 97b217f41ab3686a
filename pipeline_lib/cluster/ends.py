"""How jobs end, where the states that SLURM prints leave it open."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from logging import Logger

from pipeline_lib.cluster import squeue

UNSEEN = 600  # seconds after its submission within which a job must be in an answer
States = dict[str, str] | None  # of jobs by their number; None: SLURM did not answer
Query = Callable[[str, Logger], Awaitable[tuple[States, float | None]]]
# Of a job that SLURM will queue again these are the states for a while; to sacct, until it may start again.
PASSING = {"PREEMPTED": "CANCELLED", "NODE_FAIL": "FAILED"}


class Ends:
    """Knows the jobs of this Snakemake that have not ended, and which of them may have ended unnoticed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.since: dict[str, float] = {}  # when they were submitted
        self.before: dict[str, str] = {}  # their states at the last check; GONE: no answer has them any more

    def submitted(self, number: str) -> None:
        """From now on a job is expected in the answers."""
        self.since[number] = self.clock()

    def doubtful(self, states: dict[str, str]) -> dict[str, str]:
        """Jobs that may have ended, with the state for the plugin if they have.

        Such are those PREEMPTED or NODE_FAIL at two checks in a row, those that were there and are missing at two
        checks in a row, and those that never were there. Of the missing ones the plugin shall look for the output
        (UNKNOWN).
        """
        found = {}
        for number, since in list(self.since.items()):
            state, before = states.get(number), self.before.get(number)
            if state is None:
                if before == "GONE" or (before is None and self.clock() - since > UNSEEN):
                    found[number] = "UNKNOWN"
                elif before is not None:
                    self.before[number] = "GONE"
                continue
            self.before[number] = state
            if state in PASSING:
                if state == before:
                    found[number] = PASSING[state]
            elif state in squeue.ENDED:
                self.forget(number)
        return found

    def forget(self, number: str) -> None:
        """The plugin has been told how a job ended."""
        self.since.pop(number, None)
        self.before.pop(number, None)


async def judged(number: str, end: str, logger: Logger) -> str | None:
    """The state of a job that may have ended, by a second question; None where SLURM does not answer that."""
    try:
        job = await asyncio.to_thread(squeue.job, number)
    except squeue.NoAnswer as why:
        logger.debug(f"Whether SLURM job {number} has ended is not known: {why}")
        return None
    return end if job is None else PASSING.get(job.state, job.state)


def translated(query: Query, ends: Ends) -> Query:
    """The plugin's query of all states, such that every end is one that the plugin knows."""

    async def ask(command: str, logger: Logger) -> tuple[States, float | None]:
        states, seconds = await query(command, logger)
        if states is None:
            return None, seconds
        states = {number: state.partition(" ")[0] for number, state in states.items()}  # 'CANCELLED by 1000'
        for number, end in ends.doubtful(states).items():
            if state := await judged(number, end, logger):
                states[number] = state
                if state == "UNKNOWN" or state in squeue.ENDED:
                    ends.forget(number)
        return states, seconds

    return ask
