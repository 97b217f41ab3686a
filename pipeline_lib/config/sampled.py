"""Which samplings draw from which methods, as the summary of an experiment says it to tables, report and tracking."""

from collections.abc import Mapping
from typing import Any

SOUGHT = ("tuning", "transfer")  # keys of a sampling that say where constants come from; what is found decides samples


def samplings_of(experiment: Mapping[str, Any], method: str) -> list[str]:
    """Names of the samplings that draw from a method's runs, in the order of the file; the first is its main one."""
    return experiment["methods"][method]["samplings"]


def scored_samplings(experiment: Mapping[str, Any], method: str) -> list[str]:
    """Those whose images are scored."""
    return [name for name in samplings_of(experiment, method) if is_scored(experiment, name)]


def is_scored(experiment: Mapping[str, Any], sampling: str) -> bool:
    """Whether a sampling's images are scored, or it serves the cumulative error alone."""
    return experiment["samplings"][sampling].get("scored", True)


def pictured(experiment: Mapping[str, Any], method: str) -> list[str]:
    """Those that have figures of their own: a grid would fill many pages, so its points are in tables alone.

    Where a method is drawn by points of grids only, they have figures after all.
    """
    names = samplings_of(experiment, method)
    return [name for name in names if not experiment["samplings"][name]["family"]] or names
