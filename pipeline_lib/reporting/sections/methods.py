"""The section of the methods: for each its text, settings, control, scores, curves, sample grids and costs."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib import registry
from pipeline_lib.exits import PipelineError
from pipeline_lib.reporting import relative_costs
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.sections.samples import cell_of, sampled
from pipeline_lib.reporting.sections.scores import score_table, with_score
from pipeline_lib.reporting.summaries import cells, label, of_grid, score_summary

DOCS = Path("docs/methods")  # of the repository that the workflow runs in


@dataclass(frozen=True)
class Method:
    """One method of the experiment as its section shows it."""

    name: str
    label: str
    says: str
    docs: str
    variants: Table
    changed: Table
    options: Table
    scores: Table
    curves: list[str]
    grids: list[dict[str, Any]]
    costs: Table


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    return Section("Methods", "methods", render("methods", {"methods": list(methods(results))}))


def methods(results: Results) -> Iterator[Method]:
    """In the order of the experiment."""
    experiment, tables = results.experiment, results.tables
    summary = with_score(score_summary(tables["scores"], experiment), tables["scores"])
    costs = relative_costs.measure(results.folder, experiment, tables)
    for name in dict.fromkeys(i["method"] for i in experiment["instances"]):
        about = experiment["methods"][name]
        resolved = configurations(results, name)
        objective = next((c["objective.name"] for c in resolved.values()), "")
        controls = [v["control"].split("/") for v in about["variants"].values() if v["control"]]
        shown = [(name, v) for v in about["variants"]] + [(m, v) for m, v in controls if m != name]
        mine = score_table(tables["scores"], summary[summary["method"].eq(name)], experiment, yardsticks=False)
        yield Method(
            name,
            about["label"],
            said(objective),
            document(objective, results.folder),
            variants(experiment, name),
            changed(results, name, resolved),
            replace(options(resolved), same={}),
            mine,
            list(dict.fromkeys(label(experiment, *who) for who in shown)),
            list(grids(results, name)),
            table(relative_costs.shown(costs[costs["method"].eq(name)], experiment), (), ("method",)),
        )


def said(objective: str) -> str:
    """The first paragraph of the objective's module."""
    try:
        text = registry.find("objectives", objective).__doc__ or ""
    except (PipelineError, ImportError):
        return ""
    return " ".join(text.split("\n\n")[0].split())


def document(objective: str, folder: Path) -> str:
    """Link from `folder` to the text of a method; '' where there is none."""
    path = DOCS / f"{objective}.md"
    return os.path.relpath(path, folder) if path.is_file() else ""


def variants(experiment: Mapping[str, Any], method: str) -> Table:
    """Each with its preset, control, seeds and published row."""
    runs = [(i["variant"], i["seed"]) for i in experiment["instances"] if i["method"] == method]
    rows = [
        {
            "variant": name,
            "preset": about["preset"] or "none",
            "control": label(experiment, *about["control"].split("/")) if about["control"] else "",
            "published as": about["published"] or "",
            "seeds": ", ".join(str(s) for s in dict.fromkeys(s for v, s in runs if v == name)),
            "samplings": ", ".join(experiment["methods"][method]["samplings"]),
        }
        for name, about in experiment["methods"][method]["variants"].items()
    ]
    return table(pd.DataFrame(rows), (), ("variant",))


def configurations(results: Results, method: str) -> dict[str, dict[str, str]]:
    """Variant -> its resolved training configuration, dotted key -> text; without the seed, and points of grids."""
    found: dict[str, dict[str, str]] = {}
    for one in results.experiment["instances"]:
        variant = one["variant"]
        if one["method"] == method and variant not in found and not of_grid(results.experiment, method, variant):
            path = results.folder / one["path"] / "train" / "config.json"
            if path.is_file():
                config = {k: v for k, v in json.loads(path.read_text())["config"].items() if k != "seed"}
                found[variant] = dict(_flat(config))
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "none" if value is None else json.dumps(value).strip('"')


def changed(results: Results, method: str, resolved: Mapping[str, Mapping[str, str]]) -> Table:
    """Settings in which a variant differs from its control, a row for each key; '' where the other has no such key."""
    rows = []
    for variant, mine in resolved.items():
        control = results.experiment["methods"][method]["variants"][variant]["control"]
        if control is None:
            continue
        who, _, of = control.partition("/")
        theirs = configurations(results, who).get(of, {})
        rows += [
            {"variant": variant, "key": key, "value": mine.get(key, ""), "control's": theirs.get(key, "")}
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]
    return table(
        pd.DataFrame(rows, columns=["variant", "key", "value", "control's"]), (), ("key", "value", "control's")
    )


def options(resolved: Mapping[str, Mapping[str, str]]) -> Table:
    """All resolved settings: a row for each key, a column for each variant; only one where all have the same."""
    wide = pd.DataFrame(resolved).fillna("").rename_axis("key").reset_index()
    return table(wide, (), wide.columns)


def grids(results: Results, method: str) -> Iterator[dict[str, Any]]:
    """The sample grids of the first seed that has some, of each variant and cell."""
    shown = set()
    for one in results.experiment["instances"]:
        if one["method"] != method or of_grid(results.experiment, method, one["variant"]):
            continue
        for sampler, nfe in cells(results.experiment, method):
            made = sampled(results, one, sampler)
            cell, key = cell_of(made, nfe), (one["dataset"], one["variant"], sampler, nfe)
            if cell and key not in shown:
                shown.add(key)
                text = f"{one['variant']} on {one['dataset']}, {sampler}, {nfe} calls, seed {one['seed']}"
                picture = results.pictures.stored(made, cell["grid"])
                if picture["link"]:
                    yield {"text": text, **picture}
