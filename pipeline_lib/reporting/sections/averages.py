"""The section of scores against the length of the weight average."""

from pipeline_lib.reporting import averages
from pipeline_lib.reporting.page import Results, Section, render, table

NUMBERS = ("half-life, images", "score", "difference to the main average")  # texts that begin with a number


def section(results: Results) -> Section | None:
    """None where no samplings differ in the average alone."""
    if not results.experiment["averages"]:
        return None
    rows = averages.measure(results.experiment, results.tables)
    values = {
        "figure": results.pictures.figure(averages.NAME),
        "reading": averages.READING,
        "caption": averages.CAPTION,
        "table": table(averages.shown(rows, results.experiment), NUMBERS, ("average", "score")) if len(rows) else None,
    }
    return Section("Length of the weight average", averages.NAME, render(averages.NAME, values))
