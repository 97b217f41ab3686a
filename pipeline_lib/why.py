"""What would run and why, grouped: a dry run of Snakemake, read. It takes seconds, so `plan` asks only with --why."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline_lib.exits import BadConfig
from pipeline_lib.terminal import columns

AFTER = "another job of this plan makes its input anew"
WHY = {  # of Snakemake's reasons, the one that says most first
    "Code has changed since last execution": "the rule's code changed",
    "Params have changed since last execution": "its parameters changed",
    "Set of input files has changed since last execution": "it has other inputs than before",
    "Software environment definition has changed since last execution": "its software environment changed",
    "Updated input files": "an input changed",
    "Missing output files": "its output is not there",
    "Forced execution": "it was asked for",
    "Input files updated by another job": AFTER,
}


def counts(config: Path) -> Counter[tuple[str, str]]:
    """How many jobs of a (rule, reason) would run. Raises BadConfig with Snakemake's words where the dry run fails.

    As whenever Snakemake reads the Snakefile, the stage configurations in results/ are written where they differ.
    """
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--configfile", str(config), "-n"]
    package = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        raise BadConfig(f"the dry run of Snakemake failed: {' '.join(said.split())[-400:]}")
    return Counter(reasons(said))


def text(config: Path) -> str:
    """Rules with the jobs that would run and the reasons, as a table."""
    found = counts(config)
    if not found:
        return "nothing would run: everything is there and up to date.\n"
    return columns(("rule", "jobs", "why"), [[rule, f"{n:,}", why] for (rule, why), n in found.items()], (0, 2))


def reasons(said: str) -> Iterator[tuple[str, str]]:
    """(rule, reason) of every job that a dry run lists; the target rule `all` is none."""
    rule = ""
    for line in said.splitlines():
        if found := re.fullmatch(r"(?:local)?(?:rule|checkpoint) (\w+):", line):
            rule = found[1]
        elif (found := re.fullmatch(r"    reason: (.*)", line)) and rule != "all":
            yield rule, _why(found[1])


def _why(reason: str) -> str:
    updated = re.search(r"Updated input files: ([^;]*)", reason)
    if updated and "config.json" in updated[1]:
        return "its configuration changed"
    return next((said for words, said in WHY.items() if words in reason), reason.partition(":")[0])
