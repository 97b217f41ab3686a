"""Whether this machine, or this cluster, can run an experiment: `doctor` looks before anything is queued.

Every check is a line: ok, warn (it runs, but read this), fail (it cannot work so), or not here. Nothing is changed; a
lock is tried on a file that is removed again.
"""

import contextlib
import fcntl
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib import terminal
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.exits import BadConfig, PipelineError

OK, WARN, FAIL, ABSENT = "ok", "warn", "fail", "not here"
LOCAL = ("tmpfs", "ramfs", "overlayfs", "ext2/ext3", "xfs", "btrfs", "zfs")  # as `stat --file-system` names them
FORGETS = 200  # seconds: a job must stay longer in squeue than the head may pause between two questions (180 s)
LONG = ("train", "autoencoder")  # rules whose jobs ask for runtime.train_minutes
SPREAD = ("train", "sample", "reference", "scores")  # rules whose jobs take runtime.nodes
FLAGS = {  # of sbatch -> resource of a rule, as the plugin makes the one of the other
    "partition": "slurm_partition",
    "account": "slurm_account",
    "qos": "qos",
    "constraint": "constraint",
    "mem": "mem_mb",
    "nodes": "nodes",
    "gpus": "gpu",
}
ASKED = 20  # seconds that a command may take to answer
DEFAULT = Path("profiles/slurm")
Parsed = dict[str, str]


@dataclass(frozen=True)
class Check:
    """What was looked at, the verdict, and one sentence that says what to do where it is not ok."""

    name: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Profile:
    """What a Snakemake profile says of the cluster."""

    path: str
    asks: str = "squeue"  # the command that states of jobs are asked from
    requeue: bool = False
    partitions: dict[str, str] = field(default_factory=dict)  # rule -> partition; '' for the other rules
    mpi: frozenset[str] = frozenset()  # rules with that resource; '' for all rules
    resources: dict[str, dict[str, str]] = field(default_factory=dict)  # rule -> its own; '' for those of all

    @classmethod
    def read(cls, folder: Path) -> "Profile":
        """Raises BadConfig where there is no such profile."""
        path = folder / "config.yaml" if folder.is_dir() else folder
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise BadConfig(f"the profile {path} cannot be read ({error}).") from None
        given = dict(str(one).split("=", 1) for one in _listed(values.get("default-resources")))
        rules = {"": given} | {k: v for k, v in (values.get("set-resources") or {}).items() if isinstance(v, dict)}
        found = {rule: str(of["slurm_partition"]) for rule, of in rules.items() if "slurm_partition" in of}
        asks = str(values.get("slurm-status-command", "sacct"))  # the plugin's default
        mpi = frozenset(rule for rule, of in rules.items() if "mpi" in of)
        texts = {rule: {k: str(v).strip("'\"") for k, v in of.items()} for rule, of in rules.items()}
        return cls(str(path), asks, bool(values.get("slurm-requeue")), {"": "", **found}, mpi, texts)

    def of(self, rule: str) -> dict[str, str]:
        """What the profile sets of the resources of a rule."""
        return {**self.resources.get("", {}), **self.resources.get(rule, {})}


def _listed(resources: Any) -> list[str]:
    return [f"{k}={v}" for k, v in resources.items()] if isinstance(resources, dict) else [*(resources or ())]


def run(config: Path, profile: Path | None = None, as_json: bool = False) -> int:
    """Print all checks; 1 where one fails."""
    found = list(checks(config, profile))
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        terminal.show(("check", "", "what it says"), [[c.name, c.verdict, c.sentence] for c in found], (0, 1, 2), 1)
    return int(any(one.verdict == FAIL for one in found))


def checks(config: Path, profile: Path | None) -> Iterator[Check]:
    """All checks, for the experiment of a configuration file and a profile of Snakemake.

    Without a profile the cluster is looked at only where one answers, against the project's own profile for SLURM.
    """
    yield Check("Python", OK, sys.version.split()[0])
    yield from _torch()
    try:
        plan = load(config)
    except PipelineError as error:
        yield Check("configuration", FAIL, str(error))
        return
    yield Check("configuration", OK, f"{config}: {len(plan.instances)} runs")
    here = profile is not None or not _asked(["scontrol", "ping"])[1]
    if here:
        yield from slurm(plan, Profile.read(profile or DEFAULT))
    else:
        yield Check(
            "SLURM", ABSENT, "no cluster answers (scontrol ping); jobs run on this machine, with profiles/local"
        )
    for place in ("results", "work"):
        yield file_system(Path(place), here)
        yield lock(Path(place))
    yield disk(plan)
    yield tracking(plan)
    yield _inception(plan)


def _torch() -> Iterator[Check]:
    import torch

    release = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    yield Check("torch", OK if release >= (2, 11) else FAIL, f"{torch.__version__} (2.11 or newer is needed)")
    if not torch.cuda.is_available():
        yield Check("GPU", ABSENT, "torch sees no GPU on this host; a job computes on the CPU unless its node has one")
        return
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("GPU", OK, f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        yield Check("bfloat16", OK, "computed by the GPU")
    else:
        yield Check("bfloat16", WARN, "this GPU has none: precision bf16 computes in float32 and takes longer")
    if importlib.util.find_spec("triton"):
        yield Check("Triton", OK, "our kernels can be compiled")
    else:
        yield Check("Triton", WARN, "not installed: plain torch takes the place of our kernels, at fewer steps/s")


def slurm(plan: Plan, profile: Profile) -> Iterator[Check]:
    """What the cluster says of itself, against what the profile and the experiment ask of it."""
    for command in ("sbatch", "scontrol"):
        if not shutil.which(command):
            yield Check("SLURM", FAIL, f"{command} is not on the PATH; run on a host that may submit jobs")
            return
    settings, why = _asked(["scontrol", "show", "config"])
    if why:
        yield Check("scontrol", FAIL, f"`scontrol show config` does not answer ({why})")
        return
    yield _states(profile)
    config = dict(re.findall(r"^(\S+)\s*=\s*(.*?)\s*$", settings, re.MULTILINE))
    yield _requeue(config, profile)
    yield _memory_of(config, profile)
    yield from _partitions(plan, profile, config)
    if plan.experiment.runtime.nodes > 1:
        yield _steps(plan.experiment.runtime.nodes, profile)
    yield _submission(plan, profile)


def _steps(nodes: int, profile: Profile) -> Check:
    """Without `mpi` the plugin puts a rule's command into one step, in which no launcher reaches the other nodes."""
    lacking = () if "" in profile.mpi else [rule for rule in SPREAD if rule not in profile.mpi]
    if lacking:
        sentence = f"runtime.nodes is {nodes}, and the jobs of {', '.join(lacking)} would start on one node only; "
        return Check("nodes", FAIL, f"{sentence}set mpi: srun for them in {profile.path} (see docs/parallel.md)")
    return Check("nodes", OK, f"{nodes} for each job of {', '.join(SPREAD)}")


def _submission(plan: Plan, profile: Profile) -> Check:
    """Whether SLURM would take the jobs: GPUs and memory of its nodes, account, flags of the site.

    A refusal at submission counts as a failed job, which the profile's retries try again and again.
    """
    runtime = plan.experiment.runtime
    jobs: dict[tuple[str, ...], list[str]] = {}
    for rule in SPREAD:
        minutes = runtime.train_minutes if rule in LONG else runtime.job_minutes
        ours = {"mem_mb": runtime.memory_mb, "nodes": runtime.nodes, "gpu": runtime.processes}
        asked = {k: str(v) for k, v in {**ours, **profile.of(rule)}.items()}
        flags = [f"--{k}={asked[v]}" for k, v in FLAGS.items() if asked.get(v, "0") != "0"]
        extra = shlex.split(asked.get("slurm_extra", ""))
        jobs.setdefault((*flags, f"--time={minutes}", *extra), []).append(rule)
    for command, rules in jobs.items():
        _, why = _asked(["sbatch", "--test-only", *command, "--wrap=true"])  # submits nothing
        if why:
            sentence = (
                f"SLURM would refuse jobs of {', '.join(rules)} ({why}), or all their nodes are down; they ask for "
            )
            keys = f"{' '.join(command)}, by {profile.path} and runtime.processes, nodes and memory_mb"
            return Check("submission", FAIL, f"{sentence}{keys}")
    return Check("submission", OK, f"sbatch --test-only takes jobs of {', '.join(SPREAD)}")


def _states(profile: Profile) -> Check:
    """The command by which Snakemake learns how jobs end."""
    asked = {"squeue": ["squeue", "--noheader", "--me"], "sacct": ["sacct", "--noheader", "--allocations"]}
    name = profile.asks if profile.asks in asked else "sacct"
    other = "sacct" if name == "squeue" else "squeue"
    if not shutil.which(name):
        return Check(
            "job states", FAIL, f"{name} is not on the PATH; set slurm-status-command: {other} in {profile.path}"
        )
    _, why = _asked(asked[name])
    if why:
        return Check(
            "job states",
            FAIL,
            f"{name} does not answer ({why}); set slurm-status-command: {other} in {profile.path}",
        )
    return Check("job states", OK, f"{name} answers")


def _requeue(config: Parsed, profile: Profile) -> Check:
    if profile.requeue:
        return Check("requeue", OK, "jobs are submitted with --requeue (slurm-requeue)")
    if config.get("JobRequeue") == "1":
        return Check("requeue", OK, "JobRequeue=1: SLURM starts a job again after its node failed")
    return Check(
        "requeue", WARN, f"JobRequeue=0: a node that fails takes a retry; slurm-requeue: true in {profile.path}"
    )


def _memory_of(config: Parsed, profile: Profile) -> Check:
    """How long squeue knows a job that has ended."""
    seconds = int((re.findall(r"\d+", config.get("MinJobAge", "")) or ["300"])[0])
    if profile.asks == "squeue" and seconds < FORGETS:
        sentence = f"squeue forgets a job after {seconds} s (MinJobAge); set slurm-status-command: sacct if it answers"
        return Check("MinJobAge", WARN, sentence)
    return Check("MinJobAge", OK, f"{seconds} s")


def _partitions(plan: Plan, profile: Profile, config: Parsed) -> Iterator[Check]:
    runtime = plan.experiment.runtime
    asked: dict[str, int] = {}  # partition -> the longest job that goes there
    for rule, name in profile.partitions.items():
        asked[name] = max(asked.get(name, 0), runtime.train_minutes if rule in LONG else runtime.job_minutes)
    for name, minutes in asked.items():
        yield _partition(name, minutes, profile, config)
    if "train" in profile.partitions and profile.of("train").get("gpu") != "0":
        yield _gpus(profile.partitions["train"], profile, config)


def _partition(name: str, minutes: int, profile: Profile, config: Parsed) -> Check:
    title = f"partition {name or '(default)'}"
    if not name:
        return Check(title, WARN, f"{profile.path} names none (slurm_partition); SLURM takes its default")
    text, why = _asked(["scontrol", "show", "partition", name, "--oneliner"])
    if why:
        return Check(title, FAIL, f"there is none ({why}); `sinfo` lists them, set slurm_partition in {profile.path}")
    found = dict(one.split("=", 1) for one in text.split() if "=" in one)
    most = limit(found.get("MaxTime", "UNLIMITED"))
    if most is not None and minutes > most:
        return Check(
            title,
            FAIL,
            f"its MaxTime is {most:g} min and a job asks for {minutes}, so it would wait for ever; lower "
            "runtime.train_minutes and runtime.job_minutes to that",
        )
    if found.get("State", "UP") != "UP":
        return Check(title, WARN, f"it is {found['State']}; jobs wait until it is UP")
    modes = found.get("PreemptMode", config.get("PreemptMode", "OFF"))
    mode = next((one for one in PREEMPTED if one in modes), modes)
    within = f"{minutes} min asked, MaxTime {found.get('MaxTime', 'UNLIMITED')}, PreemptMode {mode}"
    if mode in PREEMPTED:
        return Check(title, WARN, f"{within}: {PREEMPTED[mode]}")
    return Check(title, OK, within)


PREEMPTED = {
    "CANCEL": "a preempted job is ended, so each preemption takes one of the profile's retries",
    "SUSPEND": "a preempted job stands still and keeps its lease only for two minutes",
}


def _gpus(partition: str, profile: Profile, config: Parsed) -> Check:
    """Whether `--gpus=1` is understood, and there is one where the trainings go."""
    kinds = config.get("GresTypes", "").split(",")
    text, why = _asked(["sinfo", "--noheader", "--partition", partition, "--format=%G"])
    if "gpu" not in kinds:
        return Check("GPU flags", FAIL, f"SLURM knows no GPUs (GresTypes): set gpu: 0 for the rules in {profile.path}")
    if why or "gpu" not in text:
        return Check(
            "GPU flags",
            FAIL,
            f"no node of partition {partition} has a GPU (`sinfo -o %G`); set another, or gpu: 0, in {profile.path}",
        )
    return Check("GPU flags", OK, f"--gpus is understood; {partition} has {', '.join(sorted(set(text.split())))}")


def limit(text: str) -> float | None:
    """Minutes of a time as SLURM prints it, such as 1-12:00:00; None where there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(n or 0) for n in found.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def file_system(place: Path, cluster: bool) -> Check:
    """Nodes must see results/ and work/, too."""
    title = f"{place}/"
    where = _there(place)
    kind, why = _asked(["stat", "--file-system", "--format=%T", str(where)])
    kind = kind.strip()
    if why:
        return Check(title, WARN, f"its file system is not known ({why})")
    if cluster and kind in LOCAL:
        return Check(
            title, WARN, f"{kind} is a file system of one host; the nodes of a cluster must see the folder, too"
        )
    return Check(title, OK, f"on {kind}")


def lock(place: Path) -> Check:
    """Jobs keep out of each other's way by locks on files, which some network file systems have switched off."""
    title, folder = f"locks in {place}/", _there(place)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as first, open(first.name) as second:  # noqa: PTH123
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Check(title, FAIL, "two jobs would get the same lock (flock): mount it with locks, or move")
    except OSError as error:
        return Check(title, FAIL, f"flock does not work in {folder} ({error.strerror}): mount it with locks, or move")
    return Check(title, OK, "flock works")


def disk(plan: Plan) -> Check:
    """Free disk against what `plan` says."""
    from pipeline_lib.estimate import datasets, in_all, size

    free, needed = shutil.disk_usage(_there(Path("results"))).free, in_all(datasets(plan))
    if needed is None:
        return Check("disk", WARN, f"{size(free)} free; how much is needed is not known, see `plan`")
    said = f"{size(free)} free, at most {size(needed)} needed with one training at a time (`plan` lists it)"
    return Check("disk", OK if free > needed else FAIL, said)


def tracking(plan: Plan) -> Check:
    """A server must answer; a file of this machine needs none."""
    uri = plan.experiment.tracking.uri
    if not plan.tracked:
        return Check("tracking", ABSENT, "nothing is pushed to MLflow")
    if not uri.startswith("http"):
        return Check("tracking", OK, uri)
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return Check("tracking", OK, f"{uri} answers")
    except urllib.error.HTTPError as error:
        return Check("tracking", WARN, f"{uri} answers {error.code}; it may want a name and a password")
    except OSError as error:
        return Check("tracking", FAIL, f"{uri} does not answer ({error}); start it, or change tracking.uri")


def _inception(plan: Plan) -> Check:
    from pipeline_lib.scores.extractors import INCEPTION_MISSING, inception_weights

    try:
        found = inception_weights(plan.experiment.scores.inception_weights)
    except PipelineError as error:
        return Check("Inception", FAIL, str(error))
    if found is None:
        return Check("Inception", WARN, f"no FID, only FD of other extractors: {INCEPTION_MISSING}")
    return Check("Inception", OK, str(found))


def _there(place: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(p for p in (place.absolute(), *place.absolute().parents) if p.is_dir())


def _asked(command: list[str]) -> tuple[str, str]:
    """(what a command prints, why it failed); the latter is empty where it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKED)
    except FileNotFoundError:
        return "", f"{command[0]} is not on the PATH"
    except subprocess.TimeoutExpired:
        return "", f"no answer within {ASKED} s"
    said = " ".join((done.stderr or done.stdout).split())[:120]
    return done.stdout, (said or f"exit code {done.returncode}") if done.returncode else ""
