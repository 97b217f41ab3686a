"""Starting the processes of one job through torch.distributed.run: on this host, or on the hosts of a SLURM job."""

import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from types import FrameType

from pipeline_lib.exits import PERMANENT, BadConfig, TryAgain

SAVING = 300  # seconds that processes are given for a last checkpoint once the job is told to end
PORTS = (20_000, 20_000)  # first, and how many: two jobs that share a host should not share a port


def wanted(processes: int, nodes: int) -> bool:
    """Whether this command shall start others: more than one process is asked for, and it is not yet one of them."""
    if processes % nodes:
        raise BadConfig(f"{processes} processes cannot be spread evenly over {nodes} nodes; change one of them.")
    return processes > 1 and "WORLD_SIZE" not in os.environ


def launch(arguments: Sequence[str], processes: int, nodes: int = 1) -> int:
    """Run `python -m pipeline_lib ARGUMENTS` in so many processes, and return the exit code of the job.

    On several nodes this command must run once on each, with one MASTER_ADDR and MASTER_PORT for all; inside a SLURM
    job it sees to that itself, through srun.
    """
    command = ["-m", "pipeline_lib", *arguments]
    if nodes > 1 and _needs_srun(nodes):
        return _srun([sys.executable, *command], nodes)
    return _agent(command, processes // nodes, nodes)


def _agent(command: Sequence[str], each: int, nodes: int) -> int:
    """Start and watch the processes of this host."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of torch's launcher: our own sentences say what went wrong
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVING))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // each)))
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    name, place = meeting(nodes, os.environ)
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=each,
        run_id=name,
        rdzv_backend="c10d",
        rdzv_endpoint=place,
        max_restarts=0,  # a retry is the scheduler's
    )
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException:
        return TryAgain.exit_code
    except ChildFailedError as error:
        return exit_code([failure.exitcode for failure in error.failures.values()])
    return 0


def exit_code(codes: Sequence[int]) -> int:
    """Of the job, from those of processes that failed.

    A permanent one wins: when one process ends, the launcher tells the others to leave, and they leave with 75 whatever
    it was that ended the first. A broken GPU or file system is 75 in the process that meets it, too (`faults`).
    """
    known = next((code for code in (*PERMANENT, TryAgain.exit_code) if code in codes), codes[0])
    return known if known > 0 else 128 - known  # as a shell tells of a signal


def meeting(nodes: int, environment: Mapping[str, str]) -> tuple[str, str]:
    """Name of the job and host:port where its nodes meet; raises BadConfig where nothing says so."""
    if nodes == 1:
        return uuid.uuid4().hex, "localhost:0"
    job = environment.get("SLURM_JOB_ID", "0")
    port = environment.get("MASTER_PORT") or str(PORTS[0] + int(job) % PORTS[1])
    host = environment.get("MASTER_ADDR") or _first_host(environment)
    return f"pipeline-{job}", f"{host}:{port}"


def _first_host(environment: Mapping[str, str]) -> str:
    hosts = environment.get("SLURM_JOB_NODELIST")
    if not hosts:
        raise BadConfig(
            "several nodes need a place to meet: run inside a SLURM job, or set MASTER_ADDR and MASTER_PORT, the same "
            "on every node."
        )
    listed = subprocess.run(["scontrol", "show", "hostnames", hosts], capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]


def _needs_srun(nodes: int) -> bool:
    """Whether this is the one command of a SLURM job that shall run on every node."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS") != str(nodes)


def _srun(command: Sequence[str], nodes: int) -> int:
    """The command once on every node of this job; signals are handed on, since work is saved there."""
    spread = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    job = subprocess.Popen(["srun", "--overlap", "--kill-on-bad-exit=0", *spread, *command])

    def hand_on(number: int, frame: FrameType | None) -> None:
        job.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    return exit_code([code]) if (code := job.wait()) else 0
