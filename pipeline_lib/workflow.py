"""What the Snakefile needs of the package when it is parsed: no torch, no network, no walk through results."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

from pipeline_lib.cluster import executor
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.exits import BadConfig, PipelineError

DEFAULT = "config.yaml"
DRY = {"-n", "-np", "-pn", "--dry-run", "--dryrun"}  # `workflow.dryrun` is not known yet while the Snakefile is parsed


def open_plan(workflow: Any) -> Plan:
    """The plan of the configuration file that Snakemake was given; its stage configurations are written.

    Ends Snakemake with one sentence and the fitting exit code where the configuration is wrong. Only the main process
    writes: a job on a cluster parses the Snakefile too, and must not change what it was queued with.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` in rules is ours
    try:
        plan = _plan(workflow)
        if workflow.is_main_process and "--unlock" not in sys.argv:  # else an edit would keep the lock for ever
            plan.write(claim=not DRY & set(sys.argv))
            executor.install(plan.name, lambda: plan.equal_runs)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    _collect_less()
    return plan


def _collect_less() -> None:
    """Keep the garbage collector from walking all modules and all jobs again and again while thousands are made."""
    gc.freeze()
    gc.set_threshold(10_000, 30, 30)


def _plan(workflow: Any) -> Plan:
    files = [Path(f) for f in workflow.configfiles] or [Path(DEFAULT)]
    if len(files) > 1:
        raise BadConfig("give one --configfile; a configuration that builds on another names it under 'extends'.")
    if workflow.config_settings.config:
        raise BadConfig("--config is not supported: set the value in the configuration file, so that it is recorded.")
    return load(files[0])
