"""The section of how far every job is."""

from collections.abc import Mapping
from typing import Any

from pipeline_lib.reporting.collect import ANALYTIC_STAGES, DATASET_STAGES, LATENT_STAGES, SAMPLING_STAGES
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.summaries import label

STAGES = ("moments", "tune", *SAMPLING_STAGES, "progress")  # of a sampling, in the order of the plan


def section(results: Results) -> Section:
    """A row for each problem, dataset and run; every job of `results.states` has a cell."""
    experiment = results.experiment
    dataset_stages = (*(LATENT_STAGES if experiment.get("latent") else ()), *DATASET_STAGES)
    run_stages = _run_stages(results)
    problems = experiment["analytic"]["problems"] if experiment["analytic"] else ()
    values = {
        "experiment": experiment,
        "problem_states": {p: _states(results, f"analytic/{p}", ANALYTIC_STAGES) for p in problems},
        "dataset_stages": dataset_stages,
        "dataset_states": {d: _states(results, d, dataset_stages) for d in experiment["datasets"]},
        "run_stages": run_stages,
        "run_states": [_run_states(one, results, run_stages) for one in experiment["instances"]],
    }
    return Section("Status", "status", render("status", values))


def _run_states(one: Mapping[str, Any], results: Results, stages: tuple[str, ...]) -> dict[str, Any]:
    """State of the training of an instance and of the stages of each sampling; None where it is not sampled so."""
    return {
        **one,
        "label": label(results.experiment, one["method"], one["variant"]),
        "states": _states(results, one["path"], stages),
    }


def _run_stages(results: Results) -> tuple[str, ...]:
    """Folders of the jobs of a run, those that any run has."""
    places = ("train", *(f"{name}/{stage}" for name in results.experiment["samplings"] for stage in STAGES))
    paths = [one["path"] for one in results.experiment["instances"]]
    return tuple(place for place in places if any(f"{path}/{place}" in results.states for path in paths))


def _states(results: Results, base: str, stages: tuple[str, ...]) -> list[Any]:
    return [results.states.get(f"{base}/{stage}", (None, None))[1] for stage in stages]
