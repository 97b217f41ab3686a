"""How long Snakemake takes before the first job starts: `python -m tests.sizes [SEEDS]`, from the root of a checkout.

Everything happens in copies of the workflow below a temporary folder. `up to date` has every output of the plan, empty,
as `snakemake --touch` leaves it. CPU seconds are those of Snakemake and all its children.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.config.load import read

ROOT = Path(__file__).parents[1]
PAPER = "configs/paper.yaml"
SEEDS = 17  # with so many, paper.yaml has 10,000 jobs
TARGET = "results/paper/cifar10/ddpm/paper/s0/train/manifest.json"


def copy(folder: Path) -> None:
    """The workflow without the package."""
    for name in ("rules", "profiles", "envs", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)


def large(seeds: int) -> dict[str, Any]:
    """paper.yaml with so many seeds for everything that has several."""
    return {**read(ROOT / PAPER), "experiment": "large", "seeds": list(range(seeds))}


def snakemake(folder: Path, *arguments: str) -> tuple[str, float, float]:
    """(what it prints, wall seconds, CPU seconds) of Snakemake with the profile of one machine."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", *arguments]
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    wall, now = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr, wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def finish(folder: Path, config: str) -> None:
    """Make all outputs of a configuration, empty, and let Snakemake take them for done."""
    listed, _, _ = snakemake(folder, "--configfile", config, "--summary")
    rows = listed[listed.index("output_file") :].splitlines()[1:]
    for output in (row.split("\t")[0] for row in rows if "\t" in row):
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).touch()
    snakemake(folder, "--configfile", config, "--touch")


def main(seeds: int) -> None:
    """Print a row for each measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        (folder / "large.yaml").write_text(yaml.safe_dump(large(seeds), sort_keys=False))
        _row("paper, dry run", snakemake(folder, "--configfile", PAPER, "-n", "--quiet", "rules"))
        _row("paper, one target", snakemake(folder, "--configfile", PAPER, "-n", "--quiet", "rules", "--", TARGET))
        _row("large, dry run", snakemake(folder, "--configfile", "large.yaml", "-n", "--quiet", "rules"))
        finish(folder, PAPER)
        _row("paper, up to date", snakemake(folder, "--configfile", PAPER))


def _row(what: str, measured: tuple[str, float, float]) -> None:
    text, wall, used = measured
    total = re.search(r"^total +(\d+)$", text, re.MULTILINE)
    jobs = total[1] if total else "Nothing to be done" if "Nothing to be done" in text else "?"
    print(f"{what:20} {jobs:>20} jobs {wall:6.1f} s, {used:6.1f} s of CPU", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else SEEDS)
