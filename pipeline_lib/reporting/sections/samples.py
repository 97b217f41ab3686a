"""The section of samples: methods beside each other, from the same noise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.records.store import Manifest
from pipeline_lib.reporting.collect import manifest
from pipeline_lib.reporting.image_pairs import PREFIX
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.samplings import drawn
from pipeline_lib.reporting.summaries import cells, label

CHAINS = 8  # images of each method: chain i of every method starts from the same noise


@dataclass(frozen=True)
class Column:
    """The first chains of one method, above each other."""

    label: str
    seed: int
    source: str


@dataclass(frozen=True)
class Sheet:
    """Real images and methods of one dataset and cell in columns."""

    title: str
    drawn: str
    real: str
    columns: list[Column]
    lost: list[str]


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    names = sorted({path.stem for path in (results.folder / "figures").glob(f"{PREFIX}*.svg")})
    pairs = [{"name": name.removeprefix(PREFIX), **results.pictures.figure(name)} for name in names]
    values = {"sheets": list(sheets(results)), "chains": CHAINS, "pairs": [p for p in pairs if p["link"]]}
    return Section("Samples", "samples", render("samples", values))


def sheets(results: Results) -> Iterator[Sheet]:
    """Per dataset and cell, the first chains of each method's first seed that has samples."""
    for dataset in results.experiment["datasets"]:
        made = manifest(results.folder, f"{dataset}/data")
        real = results.pictures.column(Path(made.folder) / "train-images.npy", CHAINS) if made else ""
        for sampler, nfe in cells(results.experiment):
            found = list(_columns(results, dataset, sampler, nfe))
            there = [c for c in found if c.source]
            if found:
                title = f"{dataset}, {sampler}, {nfe} network calls"
                lost = [c.label for c in found if not c.source]
                yield Sheet(title, drawn(results.experiment["samplings"][sampler]), real, there, lost)


def _columns(results: Results, dataset: str, sampler: str, nfe: int) -> Iterator[Column]:
    experiment, shown = results.experiment, set()
    for one in experiment["instances"]:
        who = (one["method"], one["variant"])
        if one["dataset"] != dataset or who in shown:
            continue
        made = sampled(results, one, sampler)
        cell = cell_of(made, nfe)
        if made and cell:
            shown.add(who)
            source = results.pictures.column(Path(made.folder) / cell["images"], CHAINS)
            yield Column(label(experiment, *who), one["seed"], source)


def sampled(results: Results, one: Mapping[str, Any], sampler: str) -> Manifest | None:
    """The samples of a run, if it is sampled so."""
    if sampler not in samplings_of(results.experiment, one["method"]):
        return None
    return manifest(results.folder, f"{one['path']}/{sampler}/sample")


def cell_of(made: Manifest | None, nfe: int) -> dict[str, Any] | None:
    """Where the samples at a number of calls lie in a stored result."""
    return next((c for c in made.facts["cells"] if c["nfe"] == nfe), None) if made else None
