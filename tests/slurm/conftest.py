"""One cluster for all tests, and working copies of the project whose head can be started, killed and started again."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from pipeline_lib.records.store import Manifest
from tests.slurm.cluster import Cluster, cluster, missing
from tests.workflow.conftest import ROOT, TINY

STEPS = 40


class Step(NamedTuple):
    """A line that slow.py has written."""

    step: int
    job: str
    node: str
    gpu: str
    process: str
    code: str


@dataclass
class Experiment:
    """A working copy with trainings of one setting under several names, and the head that runs them."""

    folder: Path
    cluster: Cluster
    variants: dict[str, dict[str, Any]]  # name -> options of slow.py, or sections of the run
    heads: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("rules", "profiles", "envs", "pipeline_lib"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Snakefile", "tests/slurm/slow.py"):
            shutil.copy(ROOT / file, self.folder)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self._config(), sort_keys=False))

    def _config(self) -> dict[str, Any]:
        training = {**TINY["base"]["training"], "steps": STEPS}
        variants = {
            name: {"run": {"objective": {"label": name, **options.get("objective", {})}, **_without(options)}}
            for name, options in self.variants.items()
        }
        return {
            **{k: TINY[k] for k in ("datasets", "sampling", "errors", "scores")},
            "experiment": "faults",
            "base": {**TINY["base"], "training": training},
            "methods": {"slow": {"objective": "slow.py", "variants": variants}},
            "runtime": {
                "log_every": 5,
                "checkpoint_minutes": 0.05,
                "train_minutes": 30,
                "job_minutes": 30,
                "memory_mb": 1000,
            },
        }

    def targets(self) -> list[Path]:
        """What its heads make."""
        return [self.place(name) / "manifest.json" for name in self.variants]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A head that makes all targets, with the profile that users get."""
        command = [
            sys.executable,
            ROOT / "tests/slurm/head.py",
            "--profile",
            "profiles/slurm",
            "--no-hooks",
            *arguments,
        ]
        with self.log.open("ab") as stream:
            head = subprocess.Popen(
                [*command, "--", *(str(t.relative_to(self.folder)) for t in self.targets())],
                cwd=self.folder,
                env={**self.cluster.environment, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"},
                stdout=stream,
                stderr=stream,
            )
        self.heads.append(head)
        return head

    @property
    def log(self) -> Path:
        """What all heads have printed."""
        return self.folder / "head.log"

    def place(self, name: str) -> Path:
        """Folder of the train stage of a variant."""
        return self.folder / f"results/faults/digits/slow/{name}/s0/train"

    def manifest(self, name: str) -> Manifest:
        """What a finished training has published."""
        return Manifest.load(self.place(name) / "manifest.json")

    def steps(self, name: str) -> list[Step]:
        """Steps of a training in the order in which they were done."""
        path = self.folder / "steps" / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [Step(int(first), *rest) for first, *rest in map(str.split, lines)]

    def jobs(self, name: str) -> list[str]:
        """Numbers of the jobs that did steps of a training, in order."""
        return list(dict.fromkeys(step.job for step in self.steps(name)))

    def slurm_logs(self, name: str) -> list[Path]:
        """Kept logs of the jobs of a variant."""
        return sorted(p for p in (self.folder / "results/slurm-logs").rglob("*.log") if f"_{name}_" in str(p.parent))


def _without(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != "objective"}


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster that is up."""
    if lacking := missing():
        pytest.skip(f"no SLURM here ({', '.join(lacking)}): make slurm-deps installs it")
    with cluster() as one:
        yield one
