"""Jobs that wait in vain: some are released, all are told of once."""

import asyncio
import logging

import pytest

from pipeline_lib.cluster.held import LAUNCH, RELEASES, Held, advice, heeding


class Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def logged() -> tuple[logging.Logger, list[str]]:
    handler = Logged()
    logger = logging.Logger("head")
    logger.addHandler(handler)
    return logger, handler.said


def test_what_slurm_could_not_start_is_released_and_in_the_end_cancelled(logged: tuple) -> None:
    logger, said = logged
    did: list[tuple[str, ...]] = []

    def act(*words: str) -> str:
        did.append(words)
        return ""

    held = Held(act)
    for _ in range(RELEASES + 1):
        held.heed({"7": LAUNCH, "8": "Resources"}, logger)
    assert did == [("scontrol", "release", "7")] * RELEASES + [("scancel", "7")]
    assert said[0] == "SLURM could not start job 7 on a node and holds it; it is released (1 of 3)."
    assert said[-1].endswith("it is cancelled, having been released 3 times.")


def test_a_release_that_is_refused_is_said(logged: tuple) -> None:
    logger, said = logged
    Held(lambda *_: "Access denied").heed({"7": "(launch_failed_requeued_held)"}, logger)  # as other versions print it
    assert said == ["SLURM could not start job 7 on a node and holds it; it is released (1 of 3): Access denied."]


def test_a_reason_that_stays_is_said_once_for_all_its_jobs(logged: tuple) -> None:
    logger, said = logged
    held = Held(lambda *_: pytest.fail("nothing is to be done"))
    for _ in range(3):
        held.heed({"7": "PartitionTimeLimit", "8": "PartitionTimeLimit", "9": "Priority"}, logger)
    held.heed({"9": "JobHeldUser"}, logger)
    first, second = said
    assert first.startswith("SLURM jobs 7, 8 wait and may never start (PartitionTimeLimit)")
    assert "lower runtime.train_minutes" in first
    assert second.startswith("SLURM job 9 waits and may never start (JobHeldUser): somebody holds it")
    assert "`scontrol release 9`" in second


@pytest.mark.parametrize(
    "reason",
    [
        *("BadConstraints", "JobHeldAdmin", "job requeued in held state", "InvalidQOS", "PartitionNodeLimit"),
        *("QOSMaxWallDurationPerJobLimit", "AssocGrpCPUMinutesLimit", "QOSGrpBillingMinutes", "QOSMaxGRESPerNode"),
    ],
)
def test_reasons_that_do_not_go_away(reason: str) -> None:
    assert advice(reason)


@pytest.mark.parametrize(
    "reason",
    [
        *("None", "Priority", "Resources", "Dependency", "BeginTime", "Licenses", "JobArrayTaskLimit"),
        *("AssocMaxJobsLimit", "QOSMaxGRESPerUser", "AssocGrpGRES", "AssocGrpCPURunMinutesLimit"),
    ],
)
def test_reasons_that_go_away_when_other_jobs_end(reason: str) -> None:
    assert not advice(reason)


def test_reasons_are_asked_for_where_a_job_may_wait(logged: tuple) -> None:
    logger, said = logged
    asked = []

    async def query(command: str, logger: logging.Logger) -> tuple[dict[str, str] | None, float]:
        asked.append(command)
        return ({"7": "BadConstraints"} if "%r" in command else states), 0.1

    ask = heeding(query, Held())
    for states in ({"7": "RUNNING", "8": "COMPLETED"}, None, {}):
        assert asyncio.run(ask("squeue --name run_1", logger)) == (states, 0.1)
    assert len(asked) == 3
    states = {"7": "PENDING", "8": "RUNNING"}
    assert asyncio.run(ask("sacct --name run_1", logger)) == (states, 0.1)
    assert asked[-1] == "squeue --name run_1 --states=PD --noheader --format='%i|%r'"
    assert len(said) == 1
