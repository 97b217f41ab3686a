"""The report stage: one offline HTML page of everything that an experiment has, needing nothing but itself.

The page is the list `SECTIONS`. Each is a function in `sections/` that takes the `Results` of the experiment and
returns its title, anchor and HTML, or None where the experiment has no such thing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.records.files import write_text
from pipeline_lib.reporting.collect import Job, State, costs_of, first_of_each
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.sections import (
    anatomy,
    averages,
    compared,
    costs,
    errors,
    files,
    findings,
    glossary,
    known_answers,
    methods,
    progress,
    provenance,
    samples,
    scores,
    status,
    training,
    tuned,
)

# In the order of the page, which is also that in which pictures take from its budget.
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    known_answers.section,
    findings.section,
    scores.section,
    compared.section,
    tuned.section,
    errors.section,
    anatomy.section,
    samples.section,
    progress.section,
    averages.section,
    training.section,
    methods.section,
    costs.section,
    status.section,
    provenance.section,
    glossary.section,
    files.section,
)


def run(folder: Path, experiment: dict[str, Any]) -> None:
    """Write `report.html` in `folder`, from whatever is there."""
    results = Results(folder, experiment)
    once = first_of_each(folder, [job for job, _ in results.states.values()])
    values = {
        "experiment": experiment,
        "sections": [made for make in SECTIONS if (made := make(results))],
        "methods": list(dict.fromkeys(experiment["methods"][i["method"]]["label"] for i in experiment["instances"])),
        "counts": counts(results.states),
        "failures": failures(results.states),
        "trainings": len([job for job in once if job.stage == "train"]),
        "spent": spent(sum(costs_of(folder, job).get("seconds") or 0.0 for job in once)),
    }
    write_text(folder / "report.html", render("report", values))


def counts(states: Mapping[str, tuple[Job, State]]) -> dict[str, int]:
    """How many stage instances are done, pending and failed; what waits for a failed one counts as pending."""
    kinds = [("pending" if s.status == "failed" and s.place != j.place else s.status) for j, s in states.values()]
    return {kind: kinds.count(kind) for kind in ("done", "pending", "failed")}


def failures(states: Mapping[str, tuple[Job, State]]) -> list[State]:
    """The failures themselves, without what waits for them."""
    return [s for j, s in states.values() if s.status == "failed" and s.place == j.place]


def spent(seconds: float) -> tuple[str, str]:
    """A duration as a number and its unit."""
    unit, name = next((u, n) for u, n in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if seconds >= u or u == 1)
    return f"{seconds / unit:,.1f}", name
