"""The section of the trainings: their losses, and what each saw."""

from collections.abc import Sequence
from math import log
from typing import Any

from pipeline_lib.reporting import plots
from pipeline_lib.reporting.collect import manifest
from pipeline_lib.reporting.figures import of_key
from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.summaries import label, number


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    values = {
        "training_figure": results.pictures.figure("training"),
        "trainings": trainings(results),
        "curves": plots.script(plots.training_plot(results.histories, results.experiment)),
    }
    return Section("Training", "training", render("training", values))


def trainings(results: Results) -> list[dict[str, Any]]:
    """Every finished training: steps, images, last loss and a small curve of it."""
    experiment, curves = results.experiment, of_key(results.histories, "loss")
    found = []
    for one in experiment["instances"]:
        curve = curves.get((one["dataset"], one["method"], one["variant"], one["seed"]))
        if curve is None:
            continue
        made = manifest(results.folder, f"{one['path']}/train")
        last = curve.iloc[-1]
        found.append(
            {
                **one,
                "label": label(experiment, one["method"], one["variant"]),
                "steps": f"{int(last['step']):,}",
                "images": f"{int(last['images']):,}",
                "parameters": f"{made.facts['parameters']:,}" if made and "parameters" in made.facts else "",
                "loss": number(float(last["value"])),
                "points": sparkline(curve["value"].tolist()),
            }
        )
    return found


def sparkline(values: Sequence[float], width: int = 120, height: int = 24) -> str:
    """`points` of an SVG polyline of the values, at most one a pixel, on a log scale unless some are not positive."""
    chosen = [values[round(i)] for i in _even(len(values), min(len(values), width))]
    if min(chosen) > 0:
        chosen = [log(v) for v in chosen]
    low, high = min(chosen), max(chosen)
    scale = (height - 2) / ((high - low) or 1)
    step = width / max(1, len(chosen) - 1)
    return " ".join(f"{i * step:.1f},{height - 1 - (v - low) * scale:.1f}" for i, v in enumerate(chosen))


def _even(total: int, count: int) -> list[float]:
    return [i * (total - 1) / max(1, count - 1) for i in range(count)]
