"""What can befall a job on a cluster, by the name of the training that it befalls."""

from collections.abc import Callable
from pathlib import Path

from tests.slurm.conftest import Experiment

PARTITIONS = {"preempted-requeue": "requeue", "preempted-cancel": "cancel", "node-failure": "fragile"}
PARTITIONS |= {"launch-failure": "unsound"}
PACE = {"timeout": 3, "budget": 3}  # seconds a step, where the fault must wait for SLURM's minutes; else 0.4


def variant(name: str) -> dict[str, object]:
    """Options of slow.py; the undisturbed one takes no time."""
    seconds = 0.0 if name == "undisturbed" else PACE.get(name, 0.4)
    return {"objective": {"seconds": seconds, "die_writing": name == "killed-writing"}}


SETTINGS = (
    *("--retries", "3", "--set-resources"),
    f"train:slurm_partition={PARTITIONS!r}.get(wildcards.variant, 'gpu')",
    "train:runtime=2 if wildcards.variant == 'budget' and attempt == 1 else 30",
)
Hits = dict[str, Callable[[str], object]]  # what befalls each variant's job, given its number


def hits(one: Experiment) -> Hits:
    """What shall befall the trainings of an experiment."""
    ask = one.cluster.ask

    def preempt(node: str) -> Callable[[str], object]:
        urgent = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
        return lambda job: ask("sbatch", *urgent)

    def fail_node(job: str) -> None:
        ask("scontrol", "update", "nodename=n4", "state=down", "reason=test")
        waiting["node-failure"] = repair_node

    def repair_node(job: str) -> None:
        """Once it is empty, as after a reboot: SLURM queues the job again without a look at its old processes."""
        if _ended(one.steps("node-failure")[-1].process) and one.cluster.stepped_out(job):
            ask("scontrol", "update", "nodename=n4", "state=resume")
        else:
            waiting["node-failure"] = repair_node

    def hold(job: str) -> None:
        ask("scontrol", "requeuehold", job)
        waiting["held"] = release

    def release(job: str) -> None:
        """Once the head has said that somebody must."""
        if f"job {job} waits and may never start" in one.log.read_text():
            ask("scontrol", "release", job)
        else:
            waiting["held"] = release

    known = {
        "timeout": lambda job: ask("scontrol", "update", f"jobid={job}", "timelimit=1"),
        "requeue": lambda job: ask("scontrol", "requeue", job),
        "preempted-requeue": preempt("n2"),
        "preempted-cancel": preempt("n3"),
        "cancelled": lambda job: ask("scancel", job),
        "node-failure": fail_node,
        "held": hold,
    }
    waiting = {name: hit for name, hit in known.items() if name in one.variants}
    return waiting


def _ended(process: str) -> bool:
    return not Path("/proc", process).exists()


def strike(one: Experiment, waiting: Hits) -> None:
    """Hit every job that has done some steps."""
    for name in [name for name in waiting if len(one.steps(name)) > 8]:
        waiting.pop(name)(one.jobs(name)[0])


def running(one: Experiment) -> bool:
    """Whether its newest head is."""
    return one.heads[-1].poll() is None
