"""A private SLURM cluster on this machine: own munge key and socket, own ports, fake GPUs, all in one folder.

Several slurmd are its nodes. Nothing of the system is read or written (/etc/slurm, the default ports, systemd), and the
daemons are children that die with this process. Needs no root: all jobs belong to who starts it.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "setpriv")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")
NODES, GPUS = 5, 12  # GPUs and CPUs of each node
BROKEN = "n5"  # whose prolog fails
HERE = '[ "$1 $2" = "show hostnames" ] && set -- show hostnames localhost\n'  # the nodes' names lead nowhere
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# What takes away what: jobs in urgent preempt those in requeue and in cancel. Of unsound, the node that cannot start
# anything comes first.
PARTITIONS = """
PartitionName=cpu Nodes=n1 Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=n1 MaxTime=60 State=UP
PartitionName=requeue Nodes=n2 MaxTime=60 PreemptMode=REQUEUE State=UP
PartitionName=cancel Nodes=n3 MaxTime=60 PreemptMode=CANCEL State=UP
PartitionName=fragile Nodes=n4 MaxTime=60 State=UP
PartitionName=unsound Nodes=n1,n5 MaxTime=60 State=UP
PartitionName=pair Nodes=n2,n3 MaxTime=60 State=UP
PartitionName=urgent Nodes=n2,n3 MaxTime=60 PriorityTier=10 State=UP
"""

# config_overrides: more CPUs than there are. A job that has ended leaves squeue after MinJobAge.
# KillWait lies between SIGTERM and SIGKILL; cred_expire, until a requeued job starts again (else 120), must be longer,
# or the job meets its own processes. MessageTimeout: the machine may be busy. ReturnToService: a node that is set down
# stays so.
SETTINGS = """
ClusterName=test
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=30
CredType=cred/munge
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
Prolog={root}/prolog
JobRequeue=1
KillWait=20
MinJobAge=300
ReturnToService=0
MessageTimeout=60
PropagateResourceLimits=NONE
"""


ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacct")
DATABASE = """
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
"""
STORED = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge/socket
"""


def missing(accounting: bool = False) -> list[str]:
    """Commands that a cluster needs and this machine lacks."""
    needed = NEEDED + (ACCOUNTING if accounting else ())
    return [name for name in needed if shutil.which(name, path=PATH) is None]


Daemon = tuple[list[str], list[str]]  # its command, and one that succeeds when it is up


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up. Its commands are on the PATH of `environment`."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """For processes that shall use it."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
            "SLURM_CONF": str(self.root / "slurm.conf"),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
        }

    def ask(self, *command: str) -> str:
        """What a SLURM command prints; raises CalledProcessError where it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def states(self) -> dict[str, str]:
        """States of all jobs of the last minutes by their number."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--format=%i|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def trouble(self) -> str:
        """Nodes that SLURM has drained and jobs that it could not start, but for those that are meant to be so."""
        nodes = self.ask("sinfo", "--Node", "--noheader", "--states=drain", "--format=%N %T %E").splitlines()
        jobs = self.ask("squeue", "--states=PD", "--noheader", "--format=%P %i %r").splitlines()
        drained = [node for node in nodes if not node.startswith(BROKEN)]
        held = [job for job in jobs if "launch failed" in job and not job.startswith("unsound")]
        return "\n".join(drained + held)

    def stepped_out(self, job: str) -> bool:
        """Whether no process of SLURM on these nodes works for a job any more."""
        title = re.compile(rf"slurmstepd: \[{job}\.".encode())
        return not any(title.match(line) for line in _command_lines())

    def describe(self) -> str:
        """Jobs, nodes and the end of the controller's log, for who wonders why nothing happens."""
        jobs = self.ask("squeue", "--states=all", "--format=%i %j %P %T %r %N %M")
        nodes = self.ask("sinfo", "--Node", "--format=%N %P %T %E")
        return f"{jobs}\n{nodes}\n{(self.root / 'slurmctld-.log').read_text()[-6000:]}"


@contextmanager
def cluster(accounting: bool = False) -> Iterator[Cluster]:
    """Up until the block ends, however it ends; with `accounting` there is a database, and sacct answers."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        one = Cluster(root)
        _write(root)
        for command, up in [*_munge(root), *(_database(root) if accounting else ()), *_slurm(root)]:
            stack.enter_context(_daemon(root, command, up, one.environment))
        stack.callback(_empty, one)
        yield one


def _write(root: Path) -> None:
    spools = [f"spool/n{i}" for i in range(1, NODES + 1)]
    for name in ("munge", "state", "spool", *spools, "bin", "dev"):
        (root / name).mkdir(mode=0o755)
    (root / "munge/key").write_bytes(os.urandom(128))
    (root / "munge/key").chmod(0o600)
    host, user, ports = _host(), _user(), _free_ports(NODES + 1)
    nodes = [
        f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={GPUS} RealMemory=64000 "
        f"Gres=gpu:fake:{GPUS} Weight={1 if f'n{i}' == BROKEN else 2} State=UNKNOWN\n"
        for i, port in enumerate(ports[1:], 1)
    ]
    settings = SETTINGS.format(root=root, host=host, user=user, port=ports[0])
    (root / "slurm.conf").write_text(settings + "".join(nodes) + PARTITIONS)
    _script(root / "prolog", f'[ "$SLURMD_NODENAME" != {BROKEN} ]')
    for i in range(GPUS):  # SLURM wants a character device with a number at its end
        (root / f"dev/nvidia{i}").symlink_to("/dev/null")
    (root / "gres.conf").write_text(
        f"NodeName=n[1-{NODES}] Name=gpu Type=fake Flags=nvidia_gpu_env File={root}/dev/nvidia[0-{GPUS - 1}]\n"
    )
    for name in CLIENTS:  # Snakemake drops SLURM_CONF on its way to srun
        if real := shutil.which(name, path=PATH):
            _script(root / "bin" / name, f'{HERE * (name == "scontrol")}SLURM_CONF={root}/slurm.conf exec {real} "$@"')


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _munge(root: Path) -> Iterator[Daemon]:
    munge = root / "munge"
    files = [f"--{name}-file={munge / name}" for name in ("key", "log", "pid", "seed")]
    yield (
        ["munged", "--foreground", "--force", *files, f"--socket={munge / 'socket'}"],
        [*("munge", f"--socket={munge / 'socket'}", "--no-input")],
    )


def _database(root: Path) -> Iterator[Daemon]:
    """MariaDB and slurmdbd, into which the cluster is entered."""
    user, (port, database_port) = _user(), _free_ports(2)
    names = {"root": root, "host": _host(), "user": user, "port": port, "database_port": database_port}
    (root / "slurmdbd.conf").write_text(DATABASE.format(**names))
    (root / "slurmdbd.conf").chmod(0o600)
    with (root / "slurm.conf").open("a") as stream:
        stream.write(STORED.format(**names))
    files = ["--no-defaults", f"--user={user}", f"--datadir={root}/database"]
    install = ["mariadb-install-db", *files, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    where = [f"--socket={root}/database.socket", "--no-defaults"]
    allow = "create user slurm@'127.0.0.1' identified by 'slurm'; grant all on *.* to slurm@'127.0.0.1'"
    yield (
        [
            "mariadbd",
            *files,
            *where[:1],
            f"--port={database_port}",
            "--bind-address=127.0.0.1",
            f"--pid-file={root}/pid",
        ],
        ["mariadb", where[1], where[0], "--user=root", f"--execute={allow}"],
    )
    yield ["slurmdbd", "-D"], ["sacctmgr", "--immediate", "add", "cluster", "test"]


def _slurm(root: Path) -> Iterator[Daemon]:
    yield ["slurmctld", "-D", "-f", f"{root}/slurm.conf"], ["scontrol", "show", "partition", "cpu"]
    for i in range(1, NODES + 1):
        idle = f"scontrol show node n{i} | grep -q 'State=IDLE '"
        yield ["slurmd", "-D", "-N", f"n{i}", "-f", f"{root}/slurm.conf"], ["sh", "-c", idle]


@contextmanager
def _daemon(root: Path, command: list[str], up: list[str], environment: dict[str, str]) -> Iterator[None]:
    log = root / f"{command[0]}-{command[3] if command[0] == 'slurmd' else ''}.log"
    found = str(shutil.which(command[0], path=PATH))
    with log.open("w") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", found, *command[1:]],
            env={**environment, "SLURM_CONF": str(root / "slurmdbd.conf")} if "slurmdbd" in command else environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_until(
            lambda: _succeeds(up, environment), 30, lambda: f"{command[0]} is not up:\n{log.read_text()[-2000:]}"
        )
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _empty(one: Cluster) -> None:
    """Cancel what still runs, so that no step outlives its node."""
    one.ask("scancel", "--user", _user())
    one.ask("scancel", "--signal=KILL", "--user", _user())
    ended = r"CANCELLED|COMPLETED|FAILED|PREEMPTED|TIMEOUT|NODE_FAIL"
    with_time = time.monotonic() + 20
    while time.monotonic() < with_time and any(not re.fullmatch(ended, s) for s in one.states().values()):
        time.sleep(0.3)


def wait_until(holds: Callable[[], object], seconds: float, why: Callable[[], str]) -> None:
    """Poll until something holds; raises TimeoutError with the text of `why`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(why())
        time.sleep(0.2)


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            yield path.read_bytes()


def _succeeds(command: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
