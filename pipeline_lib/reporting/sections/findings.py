"""The section of what the numbers say: the experiment's checks and the readings of its curves."""

from pipeline_lib.reporting.check import verdicts
from pipeline_lib.reporting.figures import drawings
from pipeline_lib.reporting.findings import readings
from pipeline_lib.reporting.page import Results, Section, render


def section(results: Results) -> Section | None:
    """None where nothing is trained."""
    if not results.experiment["instances"]:
        return None
    values = {
        "verdicts": verdicts(results.tables, results.experiment),
        "readings": readings(results.tables, results.experiment),
        "main": drawings(results.experiment)[0].title,
    }
    return Section("Findings", "findings", render("findings", values))
