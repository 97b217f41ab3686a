"""The section of tuned constants: what was tried, what each cell uses, and what the search cost."""

from pipeline_lib.reporting import tuning
from pipeline_lib.reporting.page import Results, Section, render, table


def section(results: Results) -> Section | None:
    """None where nothing is tuned."""
    if not tuning.has(results.experiment):
        return None
    made = tuning.tables(results.folder, results.experiment, results.tables["scores"])
    values = {
        "table": table(tuning.shown(made[tuning.USED])),
        "at_end": tuning.ends_note(made[tuning.TRIED], results.experiment),
        "note": tuning.NOTES[tuning.USED],
        "figure": results.pictures.figure(tuning.FIGURE),
    }
    return Section("Tuned constants", "tuning", render("tuning", values))
