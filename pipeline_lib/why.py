"""What would run and why, grouped: a dry run of Snakemake, read. It takes seconds, so `plan` asks only with --why."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.exits import BadConfig, PipelineError
from pipeline_lib.terminal import columns

CHANGED = "its configuration changed"
NAMED = 3  # keys
LONGEST = 40  # characters of a value; a longer one is left out
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
    if updated and (found := re.search(r"[^\s,]*config\.json", updated[1])):
        return _changed(Path(found[0]).parent)
    return next((said for words, said in WHY.items() if words in reason), reason.partition(":")[0])


def _changed(place: Path) -> str:
    """With the keys of which a stage's folder tells that what lies there was made with other values."""
    from pipeline_lib.reporting.collect import made_with  # and with it pandas, which a plan without --why does not need

    try:
        wanted, made = json.loads((place / "config.json").read_text())["config"], made_with(place)
    except (OSError, ValueError, KeyError, PipelineError):
        return CHANGED
    known = wanted.keys() & made.keys()  # an identity lacks what does not decide the result
    before, now = (_leaves({k: of[k] for k in sorted(known)}) for of in (made, wanted))
    keys = [k for k in {**now, **before} if before.get(k) != now.get(k)]
    if not keys:
        return CHANGED
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"{CHANGED}: {', '.join(_change(k, before.get(k), now.get(k)) for k in keys[:NAMED])}{more}"


def _leaves(values: dict[str, Any], above: str = "") -> dict[str, str]:
    """Dotted path -> value as text, of everything that is no mapping."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _change(key: str, before: str | None, now: str | None) -> str:
    texts = ["none" if text is None else text for text in (before, now)]
    return key if max(map(len, texts)) > LONGEST else f"{key} {' -> '.join(texts)}"
