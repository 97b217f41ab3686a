"""Which samplings draw from which methods, as the summary of an experiment says it to tables, report and tracking."""

from collections.abc import Mapping
from typing import Any

SOUGHT = ("tuning", "transfer")  # keys of a sampling that say where constants come from; what is found decides samples


def samplings_of(experiment: Mapping[str, Any], method: str) -> list[str]:
    """Names of the samplings that draw from a method's runs, in the order of the file; the first is its main one."""
    return experiment["methods"][method]["samplings"]
