"""Which jobs have ended, from answers of SLURM that leave it open."""

import asyncio
import logging
import subprocess

import pytest

from pipeline_lib.cluster import squeue
from pipeline_lib.cluster.ends import UNSEEN, Ends, translated
from pipeline_lib.cluster.squeue import NoAnswer

States = dict[str, str] | None


class Site:
    """Answers of one check after the other, a minute apart; `asked` are the jobs of whom squeue was asked once more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.asked = 0.0, []
        self.ends = Ends(lambda: self.now)
        self.ends.submitted("7")
        monkeypatch.setattr(squeue, "job", self._job)

    def _job(self, number: str) -> squeue.Job | None:
        self.asked.append(number)
        if isinstance(self.known, Exception):
            raise self.known
        return squeue.Job(self.known, "name") if self.known else None

    def seen(self, *answers: States, known: str | Exception | None = None) -> States:
        """What the plugin is told at the last check; `known`: what squeue says of job 7 when asked for it alone."""
        self.known = known
        told: States = None
        for answer in answers:
            self.now += 60

            async def query(command: str, logger: logging.Logger, answer: States = answer) -> tuple[States, float]:
                return answer and dict(answer), 0.1

            told, _ = asyncio.run(translated(query, self.ends)("sacct", logging.getLogger()))
        return told


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def test_the_state_of_a_cancelled_job_is_one_word(site: Site) -> None:
    assert site.seen({"7": "CANCELLED by 1000"}) == {"7": "CANCELLED"}


@pytest.mark.parametrize(("state", "end"), [("PREEMPTED", "CANCELLED"), ("NODE_FAIL", "FAILED")])
def test_a_state_that_passes_is_an_end_if_it_stays_and_squeue_knows_nothing_else(
    site: Site, state: str, end: str
) -> None:
    assert site.seen({"7": state}) == {"7": state}
    assert site.asked == []
    assert site.seen({"7": state}, known="PENDING") == {"7": "PENDING"}  # sacct shows the record of before
    assert site.seen({"7": state}, known=NoAnswer("broken")) == {"7": state}
    assert site.seen({"7": state}, known=state) == {"7": end}
    assert not site.ends.since


def test_a_job_that_squeue_has_forgotten_was_preempted_for_good(site: Site) -> None:
    assert site.seen(*[{"7": "PREEMPTED"}] * 2) == {"7": "CANCELLED"}


def test_a_job_that_is_requeued_has_not_ended(site: Site) -> None:
    told = site.seen({"7": "PREEMPTED"}, {"7": "PENDING"}, {"7": "RUNNING"}, {"7": "PREEMPTED"})
    assert (told, site.asked) == ({"7": "PREEMPTED"}, [])


def test_a_job_that_slurm_has_forgotten_is_looked_for(site: Site) -> None:
    assert site.seen({"7": "RUNNING"}, {}) == {}
    assert site.seen({"7": "RUNNING"}, {}) == {}
    assert site.asked == []
    assert site.seen({}, known="COMPLETED") == {"7": "COMPLETED"}  # sacct has not heard of it
    site.ends.submitted("7")
    assert site.seen({"7": "RUNNING"}, {}, {}) == {"7": "UNKNOWN"}
    assert site.seen({}) == {}


def test_a_job_that_was_in_no_answer_is_looked_for_after_ten_minutes(site: Site) -> None:
    checks = int(UNSEEN / 60)
    assert site.seen(*[{}] * checks) == {}
    assert site.asked == []
    assert site.seen({}, known="PENDING") == {"7": "PENDING"}
    assert site.seen({}, known=NoAnswer("broken")) == {}
    assert site.seen({}) == {"7": "UNKNOWN"}


def test_nothing_is_asked_of_jobs_that_have_ended(site: Site) -> None:
    assert site.seen({"7": "COMPLETED"}, *[{}] * 20) == {}
    assert site.asked == []


def test_no_answer_changes_nothing(site: Site) -> None:
    assert site.seen({"7": "RUNNING"}, None, None) is None
    assert site.seen({"7": "RUNNING"}) == {"7": "RUNNING"}
    assert site.asked == []


@pytest.mark.parametrize(
    ("prints", "code", "errors", "known"),
    [
        ("RUNNING|cifar_1\n", 0, "", ("RUNNING", "cifar_1")),
        ("PENDING|x\nRUNNING|x\n", 0, "", ("PENDING", "x")),
        ("", 0, "", None),
        ("", 1, "slurm_load_jobs error: Invalid job id specified", None),
    ],
)
def test_what_squeue_knows_of_a_job(
    prints: str, code: int, errors: str, known: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code, prints, errors))
    assert squeue.job("7") == known


def test_silence_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    down = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", down))
    with pytest.raises(NoAnswer, match="Unable to contact"):
        squeue.job("7")

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("squeue", 60)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(NoAnswer, match="timed out"):
        squeue.job("7")
