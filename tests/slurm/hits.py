"""What can befall a job on a cluster, by the name of the training that it befalls."""

import contextlib
import subprocess
import time
from collections.abc import Callable

from tests.slurm.conftest import Experiment

PARTITIONS = {"preempted-requeue": "requeue", "preempted-cancel": "cancel", "node-failure": "fragile"}
PACE = {"timeout": 3, "budget": 3}  # seconds a step, where the fault must wait for SLURM's minutes; else 0.4


def variant(name: str) -> dict[str, object]:
    """Options of slow.py; the undisturbed one takes no time."""
    seconds = 0.0 if name == "undisturbed" else PACE.get(name, 0.4)
    return {"objective": {"seconds": seconds, "die_writing": name == "killed-writing"}}


SETTINGS = (
    *("--retries", "3", "--set-resources"),
    f"train:slurm_partition={PARTITIONS!r}.get(wildcards.variant, 'gpu')",
    "train:runtime=2 if wildcards.variant == 'budget' else 30",
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
        time.sleep(1)
        with contextlib.suppress(subprocess.CalledProcessError):  # it has come back by itself
            ask("scontrol", "update", "nodename=n4", "state=resume")

    known = {
        "timeout": lambda job: ask("scontrol", "update", f"jobid={job}", "timelimit=1"),
        "requeue": lambda job: ask("scontrol", "requeue", job),
        "preempted-requeue": preempt("n2"),
        "preempted-cancel": preempt("n3"),
        "cancelled": lambda job: ask("scancel", job),
        "node-failure": fail_node,
    }
    return {name: hit for name, hit in known.items() if name in one.variants}


def strike(one: Experiment, waiting: Hits) -> None:
    """Hit every job that has done some steps."""
    for name in [name for name in waiting if len(one.steps(name)) > 8]:
        waiting.pop(name)(one.jobs(name)[0])


def running(one: Experiment) -> bool:
    """Whether its newest head is."""
    return one.heads[-1].poll() is None
