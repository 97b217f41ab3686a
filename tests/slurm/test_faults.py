"""What can befall a training on a cluster, all on one real cluster at once: it ends with the undisturbed weights.

One head runs trainings that differ in nothing but what happens to them; while they run, the package and the rules in
the working copy are broken. A second head is killed and started again, and a third one gets Ctrl-C.
"""

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import STEPS, Experiment
from tests.slurm.hits import SETTINGS, hits, running, strike, variant

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]

VARIANTS = ["undisturbed", "budget", "timeout", "requeue", "preempted-requeue", "preempted-cancel", "cancelled"]
VARIANTS += ["node-failure", "killed-writing", "held", "launch-failure"]
# What SLURM says of the job that was hit; of one that it has queued again itself, what it says of the end.
STATES = {
    "undisturbed": "COMPLETED",
    "timeout": "TIMEOUT",
    "requeue": "COMPLETED",
    "preempted-requeue": "COMPLETED",
    "preempted-cancel": "PREEMPTED",
    "cancelled": "CANCELLED",
    "node-failure": "COMPLETED",
    "killed-writing": "FAILED",
    "held": "COMPLETED",
    "launch-failure": "COMPLETED",
}
HURT = [name for name in VARIANTS if name not in ("undisturbed", "launch-failure")]
REQUEUED = [name for name in HURT if STATES.get(name) == "COMPLETED"]
LIMIT = 600  # seconds; five times what it takes on an idle machine


@dataclass(frozen=True)
class Outcome:
    """What is left when all is over."""

    one: Experiment
    other: Experiment  # whose head was killed
    stopped: Experiment  # whose head got Ctrl-C
    states: dict[str, str]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Averaged weights of a variant."""
        return load_file(self.one.folder / self.one.manifest(name).folder / "weights.safetensors")


def break_code(one: Experiment) -> Iterator[bool]:
    """Once the head has begun: nobody who starts now from the working copy would get far."""
    while b"Jobs run a copy of the code" not in one.log.read_bytes():
        yield True
    for file in [*(one.folder / "pipeline_lib").rglob("*.py"), *(one.folder / "rules").glob("*.smk")]:
        file.write_text("raise SystemExit('this was edited while jobs were queued')\n")


def begun(one: Experiment) -> bool:
    """Whether all its trainings have done some steps."""
    return all(len(one.steps(name)) > 3 for name in one.variants)


def restart(one: Experiment) -> Iterator[bool]:
    """Kill a head, whose jobs live on, and start another one as the documentation says; the jobs wait for its jobs."""
    while not begun(one):
        yield True
    one.heads[0].kill()
    one.heads[0].wait()
    unlocking = one.start("--unlock")
    while unlocking.poll() is None:
        yield True
    one.start()
    while one.log.read_text().count("starts after SLURM job") < len(one.variants):
        yield True
    (one.folder / "steps/go").touch()


def interrupt(one: Experiment) -> Iterator[bool]:
    """Ctrl-C, and when the head has gone the same command again."""
    while not begun(one):
        yield True
    one.heads[0].send_signal(signal.SIGINT)
    while running(one):
        yield True
    one.start()


def follow(one: Experiment, other: Experiment, stopped: Experiment) -> None:
    """Hit the jobs of `one` and the heads of the others once the trainings have done some steps; all must end."""
    waiting, end = hits(one), time.monotonic() + LIMIT
    acts = [break_code(one), restart(other), interrupt(stopped)]
    while (acts or any(map(running, (one, other, stopped)))) and time.monotonic() < end:
        strike(one, waiting)
        acts = [act for act in acts if next(act, False)]
        assert not one.cluster.trouble(), one.cluster.describe()
        time.sleep(0.5)
    for e in (one, other, stopped):
        assert not running(e), f"the head hangs:\n{e.log.read_text()[-6000:]}\n{e.cluster.describe()}"


@pytest.fixture(scope="module")
def outcome(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Everything that happens, at once."""
    variants = {name: variant(name) for name in VARIANTS} | {"bad": {"training": {"batch_size": 5000}}}
    one = Experiment(tmp_path_factory.mktemp("faults"), slurm, variants)
    slow = {"objective": {"seconds": 0.6, "hold": True}}
    other = Experiment(tmp_path_factory.mktemp("restarted"), slurm, {"first": slow, "second": slow})
    stopped = Experiment(tmp_path_factory.mktemp("stopped"), slurm, {"only": {"objective": {"seconds": 2}}})
    try:
        other.start()
        one.start(*SETTINGS)
        stopped.start()
        follow(one, other, stopped)
        yield Outcome(one, other, stopped, slurm.states())
    finally:
        for head in one.heads + other.heads + stopped.heads:
            head.kill()
            head.wait()


@pytest.mark.parametrize("name", [*HURT, "launch-failure"])
def test_the_weights_are_those_of_the_undisturbed_training(outcome: Outcome, name: str) -> None:
    hurt, whole = outcome.weights(name), outcome.weights("undisturbed")
    assert hurt.keys() == whole.keys()
    assert all(torch.equal(hurt[key], whole[key]) for key in whole)
    history = "history.parquet"
    assert outcome.one.manifest(name).files[history] == outcome.one.manifest("undisturbed").files[history]


@pytest.mark.parametrize("name", HURT)
def test_it_went_on_from_its_last_checkpoint(outcome: Outcome, name: str) -> None:
    steps = outcome.one.steps(name)
    turns = [(before, after) for before, after in pairwise(steps) if before.process != after.process]
    assert len(turns) == 1, "it was to be interrupted once"
    before, after = turns[0]
    assert 0 < after.step <= before.step + 1
    assert (before.job == after.job) is (name in REQUEUED)
    assert steps[-1].step == STEPS - 1


@pytest.mark.parametrize("name", STATES)
def test_the_fault_was_the_one_that_is_meant(outcome: Outcome, name: str) -> None:
    first = outcome.one.jobs(name)[0]
    assert outcome.states[first] == STATES[name]


@pytest.mark.parametrize(("name", "why"), [("timeout", "SIGTERM was received"), ("budget", "the time limit is near")])
def test_who_is_warned_leaves_a_checkpoint_of_its_last_step(outcome: Outcome, name: str, why: str) -> None:
    log = (outcome.one.folder / outcome.one.manifest(name).folder / "log.txt").read_text()
    done = int(re.search(rf"left: stopped after step (\d+) of {STEPS} because {why}", log)[1])
    assert f"going on after step {done}" in log
    assert [job in log for job in outcome.one.jobs(name)] == [True, True]


def test_a_permanent_failure_is_submitted_once(outcome: Outcome) -> None:
    assert outcome.one.heads[0].returncode == 1
    assert "training.batch_size is 5000" in (outcome.one.place("bad") / "failed.json").read_text()
    assert len(outcome.one.slurm_logs("bad")) == 1


def test_jobs_keep_the_code_that_they_were_queued_with(outcome: Outcome) -> None:
    used = {step.code for name in VARIANTS for step in outcome.one.steps(name)}
    (pinned,) = (outcome.one.folder / "work/code").iterdir()
    assert used == {str(pinned / "pipeline_lib/__init__.py")}


def test_jobs_have_a_gpu_and_their_logs_are_kept(outcome: Outcome) -> None:
    for name in VARIANTS:
        assert {step.gpu.isdigit() for step in outcome.one.steps(name)} == {True}
        assert {log.stem for log in outcome.one.slurm_logs(name)} == set(outcome.one.jobs(name))


def test_a_head_that_was_killed_and_started_again_repeats_nothing(outcome: Outcome) -> None:
    other = outcome.other
    assert [head.returncode for head in other.heads] == [-signal.SIGKILL, 0, 0], other.log.read_text()[-6000:]
    for name in other.variants:
        assert [step.step for step in other.steps(name)] == list(range(STEPS))
        assert len({step.process for step in other.steps(name)}) == 1
        assert len(other.slurm_logs(name)) == 2  # of these the second has waited for the first
    assert len(list((other.folder / "results/slurm-logs/rule_data").rglob("*.log"))) == 1


@pytest.mark.parametrize("name", REQUEUED)
def test_the_log_of_a_job_holds_all_its_turns(outcome: Outcome, name: str) -> None:
    def begun(of: str) -> int:
        (log,) = outcome.one.slurm_logs(of)
        return log.read_text().count("Building DAG of jobs")

    assert begun(name) == 2 * begun("undisturbed")


def test_a_job_that_a_node_could_not_start_is_released(outcome: Outcome) -> None:
    one = outcome.one
    (job,) = one.jobs("launch-failure")
    said = f"SLURM could not start job {job} on a node and holds it; it is released (1 of 3)."
    assert one.log.read_text().count(said) == 1
    assert [log.stem for log in one.slurm_logs("launch-failure")] == [job]


def test_ctrl_c_cancels_the_jobs_and_the_next_head_goes_on(outcome: Outcome) -> None:
    stopped = outcome.stopped
    assert [head.returncode for head in stopped.heads] == [1, 0], stopped.log.read_text()[-6000:]
    first, second = stopped.jobs("only")
    assert [outcome.states[job] for job in (first, second)] == ["CANCELLED", "COMPLETED"]
    assert [step.step for step in stopped.steps("only")] == list(range(STEPS))  # it had time to save
