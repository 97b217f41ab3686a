"""The section of sample grids beside real images."""

from collections.abc import Iterator
from typing import Any

from pipeline_lib.config.sampled import samplings_of
from pipeline_lib.reporting.collect import manifest
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.summaries import cells, label


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    return Section("Samples", "samples", render("samples", {"samples": samples(results)}))


def samples(results: Results) -> list[dict[str, Any]]:
    """Per dataset and cell, real images beside the samples of each method's first seed that has some."""
    found = []
    for dataset in results.experiment["datasets"]:
        real = results.pictures.stored(manifest(results.folder, f"{dataset}/data"), "grid.png")
        for sampler, nfe in cells(results.experiment):
            drawn = list(_drawn(results, dataset, sampler, nfe))
            if drawn:
                found.append({"dataset": dataset, "sampler": sampler, "nfe": nfe, "real": real, "drawn": drawn})
    return found


def _drawn(results: Results, dataset: str, sampler: str, nfe: int) -> Iterator[dict[str, Any]]:
    experiment, shown = results.experiment, set()
    for one in experiment["instances"]:
        who = (one["method"], one["variant"])
        if one["dataset"] != dataset or who in shown or sampler not in samplings_of(experiment, one["method"]):
            continue
        made = manifest(results.folder, f"{one['path']}/{sampler}/sample")
        grid = next((c["grid"] for c in made.facts["cells"] if c["nfe"] == nfe), None) if made else None
        if grid is None:
            continue
        shown.add(who)
        yield {"label": label(experiment, *who), "seed": one["seed"], **results.pictures.stored(made, grid)}
