"""The section of how far every job is."""

from collections.abc import Mapping
from typing import Any

from pipeline_lib.reporting.collect import ANALYTIC_STAGES, DATASET_STAGES, SAMPLING_STAGES
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.summaries import label


def section(results: Results) -> Section:
    """A row for each problem, dataset and run."""
    experiment = results.experiment
    problems = experiment["analytic"]["problems"] if experiment["analytic"] else ()
    values = {
        "experiment": experiment,
        "problem_states": {p: _states(results, f"analytic/{p}", ANALYTIC_STAGES) for p in problems},
        "dataset_stages": DATASET_STAGES,
        "dataset_states": {d: _states(results, d, DATASET_STAGES) for d in experiment["datasets"]},
        "sampling_stages": _sampling_stages(experiment),
        "run_states": [run_states(one, results) for one in experiment["instances"]],
    }
    return Section("Status", "status", render("status", values))


def run_states(one: Mapping[str, Any], results: Results) -> dict[str, Any]:
    """State of the training of an instance and of the stages of each sampling; None where it is not sampled so."""
    stages = _sampling_stages(results.experiment)
    places = [f"{sampler}/{stage}" for sampler in results.experiment["samplings"] for stage in stages]
    return {
        **one,
        "label": label(results.experiment, one["method"], one["variant"]),
        "states": _states(results, one["path"], ("train", *places)),
    }


def _sampling_stages(experiment: Mapping[str, Any]) -> tuple[str, ...]:
    return (*SAMPLING_STAGES, "progress") if experiment["progress"] else SAMPLING_STAGES


def _states(results: Results, base: str, stages: tuple[str, ...]) -> list[Any]:
    return [results.states.get(f"{base}/{stage}", (None, None))[1] for stage in stages]
