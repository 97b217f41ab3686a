"""A working copy of the workflow with a tiny experiment: a few steps at T = 8."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

TINY: dict[str, Any] = {
    "experiment": "tiny",
    "base": {
        "diffusion": {"timesteps": 8},
        "network": {
            "channels": 8,
            "channel_mult": [1, 2],
            "res_blocks": 1,
            "attention_resolutions": [4],
            "dropout": 0.0,
        },
        "training": {"steps": 6, "batch_size": 16, "lr": 1e-3, "warmup_steps": 2, "ema_decay": 0.9},
    },
    "datasets": {"digits": {"recipe": "digits", "holdout": 80}},
    "methods": {
        "ddpm": {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}},
        "other": {"objective": "ddpm", "variants": {"paper": {"preset": "paper", "control": "ddpm/paper"}}},
    },
    "sampling": {"ancestral": {"sampler": "ancestral", "nfe": [4], "images": 80}},
    "errors": {"chains": 24, "permutations": 20, "times": 3},
    "scores": {"classifier": {"steps": 15, "features": 8, "channels": 8}},
    "checks": [{"metric": "mmd", "nfe": 4, "at_least": 0.0}],
    "runtime": {"log_every": 2},
}


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow in a folder of its own, with `config.yaml` as its configuration."""

    folder: Path

    def configure(self, values: dict[str, Any], name: str = "config.yaml") -> None:
        """Write a configuration file."""
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with the tests' profile."""
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/test", *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'profiles/local'}"}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run lists: rule -> count; empty where nothing is to be done."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        table = re.search(r"^-+ +-+\n(.*?)^total", done.stdout, re.MULTILINE | re.DOTALL)
        return {rule: int(n) for rule, n in (line.split() for line in table[1].splitlines())} if table else {}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A fresh copy, nothing run yet."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("rules", "profiles", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    one = Checkout(folder)
    one.configure(TINY)
    return one
