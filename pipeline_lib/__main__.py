"""`python -m pipeline_lib <stage> ...`: every rule of the workflow is one of these commands.

Exit codes (sysexits.h): 0 done, 75 try again (work is saved), 65 bad data, 78 bad configuration, 70 bug.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib import faults, launch
from pipeline_lib.cluster import code
from pipeline_lib.exits import MARKER, PERMANENT, BadConfig, Bug, PipelineError, TryAgain
from pipeline_lib.records.files import digest, write_json
from pipeline_lib.records.store import Manifest

KERNELS = Path("work/kernels")  # what Triton has compiled here, for the jobs that follow
log = logging.getLogger("pipeline_lib")


@dataclass(frozen=True)
class Stage:
    """A stage command: its module has `run(config, runtime, output, **manifests, **paths)`."""

    module: str
    help: str
    manifests: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()  # manifests that most instances do without
    options: dict[str, Callable[[str], Any]] = field(default_factory=dict)
    shared: bool = False  # whether several processes can work on one instance


STAGES = {
    "data": Stage("data.prepare", "prepare a dataset"),
    "autoencoder": Stage(
        "training.autoencoder", "train the autoencoder of a dataset", ("data",), options={"max_minutes": float}
    ),
    "latents": Stage("training.latents", "encode the training images", ("data", "autoencoder")),
    "classifier": Stage("scores.classifier", "train the feature extractor of a dataset", ("data",)),
    "reference": Stage(
        "scores.reference", "feature statistics of the training images", ("data", "classifier"), shared=True
    ),
    "controls": Stage(
        "scores.controls", "score floor and ceiling", ("data", "classifier", "reference"), optional=("autoencoder",)
    ),
    "bandwidths": Stage("errors.bandwidths", "freeze the kernels of a dataset", ("data",)),
    "train": Stage(
        "training.train",
        "train one run, or go on with it",
        ("data",),
        optional=("init", "autoencoder"),
        options={"max_minutes": float},
        shared=True,
    ),
    "moments": Stage("samplers._moments", "measure what a sampler must know of a trained run", ("train", "data")),
    "tune": Stage(
        "tuning._stage",
        "find the constants of a correction",
        ("train", "data", "classifier", "reference"),
        ("trials",),
        optional=("autoencoder", "moments", "guide"),
        options={"max_minutes": float},
    ),
    "sample": Stage(
        "samplers._stage",
        "draw samples from a trained run",
        ("train",),
        optional=("autoencoder", "moments", "guide", "tuned"),
        shared=True,
    ),
    "errors": Stage(
        "errors.cumulative",
        "measure the cumulative error",
        ("train", "data", "bandwidths"),
        ("trends", "influences", "anatomy"),
        optional=("moments", "guide", "tuned"),
    ),
    "scores": Stage(
        "scores.evaluate", "score samples", ("sample", "classifier", "reference"), ("influences",), shared=True
    ),
    "progress": Stage(
        "scores.progress",
        "score the snapshots of a training",
        ("train", "sample", "classifier", "reference"),
        ("influences",),
        optional=("autoencoder", "guide"),
    ),
    "exact": Stage("analytic.curves", "exact errors of a problem whose score is known"),
    "coverage": Stage("analytic.coverage", "the estimators against the exact errors"),
    "corrections": Stage("analytic.corrected", "exact errors of short chains, with corrections of the sampler"),
    "leak": Stage("analytic.leak", "true score down to a step, an imperfect model after it"),
}

EXPERIMENT_STAGES = {
    "tables": ("reporting.tables", "collect all records of an experiment into its tables"),
    "figures": ("reporting.figures", "draw the figures from the tables"),
    "report": ("reporting.report", "build the offline HTML report"),
    "track": ("tracking.push", "push an experiment to MLflow"),
    "where": ("", "say where the report, tables and figures are"),
    "check": (
        "reporting.check",
        "verify what the experiment claims (`check fid`: FID itself); 1 where it fails",
    ),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m pipeline_lib", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, stage in STAGES.items():
        sub = commands.add_parser(name, help=stage.help)
        sub.add_argument("--config", type=Path, required=True, help="resolved stage configuration (config.json)")
        for manifest in stage.manifests:
            sub.add_argument(f"--{manifest}", type=Path, required=True, help=f"manifest of the {manifest} stage")
        for manifest in stage.optional:  # a rule without this input leaves the flag bare
            sub.add_argument(f"--{manifest}", type=Path, nargs="?", help="manifest, if there is one")
        for path in ("output", *stage.paths):
            sub.add_argument(f"--{path}", type=Path, required=True, help="file to write")
        for option, kind in stage.options.items():
            sub.add_argument(f"--{option.replace('_', '-')}", type=kind, default=None)
        if stage.shared:
            sub.add_argument("--processes", type=int, default=1, help="start so many, over all nodes")
            sub.add_argument("--nodes", type=int, default=1, help="hosts that they are spread over")
        sub.add_argument(
            "--attempt", type=int, default=1, help="number of this attempt; later ones heed a failure marker"
        )
    for name, (_, text) in EXPERIMENT_STAGES.items():
        sub = commands.add_parser(name, help=text)
        sub.add_argument("experiment", help="name of the experiment, its folder in results/, or its file")
        if name == "track":
            again = "push every so many minutes (5) what there is so far, until all is finished (docs/mlflow.md)"
            sub.add_argument("--live", type=_minutes, nargs="?", const=5.0, metavar="MINUTES", help=again)
    sub = commands.add_parser("status", help="say how far an experiment is: every run's stage, step, rate, failure")
    sub.add_argument(
        "experiment", nargs="?", default="config.yaml", help="its name, folder or file (default: config.yaml)"
    )
    sub.add_argument("--json", action="store_true", help="every job, as JSON")
    sub = commands.add_parser("doctor", help="check whether this machine or cluster can run an experiment")
    _add_config(sub)
    sub.add_argument("--profile", type=Path, help="of the cluster (default: profiles/slurm, where a cluster answers)")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = commands.add_parser("prune", help="list stored results that no manifest names")
    sub.add_argument("--delete", action="store_true", help="remove them")
    sub = commands.add_parser("plan", help="say what an experiment takes (disk, trainings, jobs); nothing is run")
    _add_config(sub)
    sub.add_argument("--why", action="store_true", help="also which jobs would run now, and why (a dry run)")
    sub.add_argument("--json", action="store_true", help="the same as JSON: bytes, counts, minutes")
    sub = commands.add_parser("bench", help="how fast the engine is here, beside the plain way (docs/performance.md)")
    sub.add_argument("--output", type=Path, default=Path("bench.json"), help="file to write (default: bench.json)")
    sub.add_argument("--only", nargs="*", default=[], help="rows whose names begin so, such as train/ddpm")
    sub.add_argument("--seconds", type=float, default=3.0, help="how long each is timed")
    commands.add_parser("reference-page", help="print docs/configuration.md, the page of all keys")
    return top


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "config", type=Path, nargs="?", default=Path("config.yaml"), help="its file (default: config.yaml)"
    )


def run_stage(name: str, args: argparse.Namespace) -> None:
    """Run one stage; a permanent failure leaves a marker, and a later attempt at the same thing ends at once.

    What the machine fails at (`faults`) is tried again, also where a stage took it for damaged data. One of several
    processes takes no marker away: it cannot tell one of before from that of another process of this attempt.
    """
    config, manifests, marker, key = _prepared(name, args)
    stage, alone = STAGES[name], "WORLD_SIZE" not in os.environ
    _heed(marker, key, args.attempt, clear=alone)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        module = importlib.import_module(f"pipeline_lib.{stage.module}")
        extra = {k: getattr(args, k) for k in (*stage.paths, *stage.options)}
        module.run(config=config["config"], runtime=config["runtime"], output=args.output, **manifests, **extra)
    except TryAgain:
        raise
    except Exception as error:
        told = _told(name, error)
        if not isinstance(told, TryAgain):
            _mark(marker, key, told)
        if told is error:
            raise
        traceback.print_exception(error)
        raise told from error


def _told(name: str, error: Exception) -> PipelineError:
    """What a stage is said to have ended with."""
    if faults.no_gpu_memory(error):
        from pipeline_lib import device

        less = "lower runtime.micro_batch, runtime.sample_batch or errors.chains, or take a larger GPU"
        return device.no_room(f"the numbers of the {name} stage", less)
    if fault := faults.of_machine(error):
        return TryAgain(fault)
    if isinstance(error, PipelineError):
        return error
    return Bug(f"{type(error).__name__} in the {name} stage: {error}; this is a bug, the lines above say where.")


def start_processes(name: str, args: argparse.Namespace, arguments: list[str]) -> int:
    """Run a stage in several processes; returns the exit code of the job.

    A marker of before is heeded here, before any of them runs: later it may be that of a faster one.
    """
    *_, marker, key = _prepared(name, args)
    _heed(marker, key, args.attempt)
    return launch.launch(arguments, args.processes, args.nodes)


def _prepared(name: str, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Manifest], Path, str]:
    """Configuration, manifests by name, where a marker would be, and the key of what it would be about."""
    stage = STAGES[name]
    code.check()
    config = _configuration(args.config)
    given = [m for m in (*stage.manifests, *stage.optional) if getattr(args, m)]
    manifests = {m: Manifest.load(getattr(args, m)) for m in given}
    key = digest({"config": config["config"], "inputs": {k: m.content for k, m in manifests.items()}})
    return config, manifests, args.output.parent / MARKER, key


def _configuration(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        return {"config": content["config"], "runtime": content["runtime"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"the stage configuration {path} cannot be read ({error}).") from None


def _minutes(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def run_experiment_stage(name: str, experiment: str, live: float | None = None) -> int:
    """Run a stage that reads a whole experiment, given by its name, its folder or its configuration file.

    `live`: minutes between two pushes of `track`, which is pushed once without it.
    `check fid` is about no experiment: it compares FID with values that others have measured.
    """
    if (name, experiment) == ("check", "fid"):
        return int(importlib.import_module("pipeline_lib.scores.known_fid").run())
    folder, summary = find_experiment(experiment)
    if name == "where":
        return where(folder)
    if live:
        return int(importlib.import_module("pipeline_lib.tracking.live").run(folder, live))
    module = importlib.import_module(f"pipeline_lib.{EXPERIMENT_STAGES[name][0]}")
    return module.run(folder, summary) or 0


def find_experiment(experiment: str) -> tuple[Path, dict[str, Any]]:
    """Its folder in results/ and what stands there of its plan; raises BadConfig where there is none."""
    folder = experiment_folder(experiment)
    path = folder / "config" / "experiment.json"
    if not path.is_file():
        known = sorted(p.parent.parent.name for p in Path("results").glob("*/config/experiment.json"))
        raise BadConfig(f"there is no experiment in {folder}; there are: {', '.join(known) or 'none yet'}.")
    return folder, json.loads(path.read_text())


def _experiment_as_planned(experiment: str) -> tuple[Path, dict[str, Any]]:
    """The same of a configuration file as it is now, whether anything of it has run or not."""
    if not experiment.endswith((".yaml", ".yml")):
        return find_experiment(experiment)
    from pipeline_lib.config.plan import load

    plan = load(Path(experiment))
    return plan.root, plan.summary()


def show_plan(config: Path, why: bool = False, as_json: bool = False) -> int:
    """Print what the experiment of a configuration file takes, and perhaps what would run and why."""
    from pipeline_lib import estimate
    from pipeline_lib import why as reasons
    from pipeline_lib.config.plan import load

    plan = load(config)
    if as_json:
        found = reasons.counts(config) if why else {}
        rows = [{"rule": rule, "jobs": count, "why": said} for (rule, said), count in found.items()]
        print(json.dumps({**estimate.content(plan), **({"why": rows} if why else {})}, indent=1))
        return 0
    print(estimate.text(plan), end="")
    if why:
        print(f"\n{reasons.text(config)}", end="")
    return 0


def show_reference() -> int:
    """Print the page of all keys."""
    from pipeline_lib.config.reference import page

    print(page(), end="")
    return 0


def experiment_folder(experiment: str) -> Path:
    """Its folder in results/."""
    if experiment.endswith((".yaml", ".yml")):
        from pipeline_lib.config.load import read

        return Path("results") / str(read(Path(experiment)).get("experiment"))
    given = Path(experiment)
    return given if (given / "config" / "experiment.json").is_file() else Path("results") / experiment


def where(folder: Path) -> int:
    """Print where the results of an experiment are."""
    places = {"report": "report.html", "tables": "tables/", "figures": "figures/"}
    for what, place in places.items():
        print(f"{what:8} {folder}/{place}{'' if (folder / place).exists() else ' (not made yet)'}")
    print(f"{'MLflow':8} make ui")
    return 0


def _heed(marker: Path, key: str, attempt: int, clear: bool = True) -> None:
    """Raise what an earlier attempt at the same thing failed at; else `clear` the marker away."""
    if not marker.is_file():
        return
    failure = json.loads(marker.read_text())
    if attempt > 1 and failure["key"] == key:
        error = PipelineError(failure["sentence"])
        error.exit_code = failure["code"]
        raise error
    if clear:
        marker.unlink(missing_ok=True)  # the launcher of another node may have been faster


def _mark(marker: Path, key: str, error: PipelineError) -> None:
    if error.exit_code in PERMANENT:
        write_json(marker, {"key": key, "code": error.exit_code, "sentence": str(error)})


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr)
    args = parser().parse_args(arguments)
    os.environ.setdefault("TRITON_CACHE_DIR", str(KERNELS.resolve()))
    try:
        if args.command in STAGES:
            if STAGES[args.command].shared and launch.wanted(args.processes, args.nodes):
                given = sys.argv[1:] if arguments is None else arguments
                return start_processes(args.command, args, given)
            run_stage(args.command, args)
            return 0
        if args.command == "prune":
            from pipeline_lib.records.prune import run

            return run(delete=args.delete)
        if args.command == "status":
            from pipeline_lib import status

            return status.run(*_experiment_as_planned(args.experiment), as_json=args.json)
        if args.command == "doctor":
            from pipeline_lib import doctor

            return doctor.run(args.config, args.profile, as_json=args.json)
        if args.command == "plan":
            return show_plan(args.config, args.why, args.json)
        if args.command == "bench":
            from pipeline_lib import bench

            return bench.run(args.output, args.only, args.seconds)
        if args.command == "reference-page":
            return show_reference()
        return run_experiment_stage(args.command, args.experiment, getattr(args, "live", None))
    except PipelineError as error:
        log.error("%s: %s", "stopped" if error.exit_code == TryAgain.exit_code else "error", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("stopped: interrupted; what is finished is kept")
        return TryAgain.exit_code


if __name__ == "__main__":
    sys.exit(main())
