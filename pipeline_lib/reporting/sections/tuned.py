"""The section of tuned constants: what was tried, what each cell uses, and what the search cost."""

from pipeline_lib.reporting import tuning
from pipeline_lib.reporting.page import Results, Section, render, table


def section(results: Results) -> Section | None:
    """None where nothing is tuned."""
    if not tuning.has(results.experiment):
        return None
    used = tuning.tables(results.folder, results.experiment, results.tables["scores"])[tuning.USED]
    values = {
        "table": table(tuning.shown(used)),
        "note": tuning.NOTES[tuning.USED],
        "figure": results.pictures.figure(tuning.FIGURE),
    }
    return Section("Tuned constants", "tuning", render("tuning", values))
