"""The section of the experiment's comparisons and sweeps."""

from pipeline_lib.reporting.page import Results, Section, render, table


def section(results: Results) -> Section | None:
    """None where the experiment compares nothing."""
    if not results.compared:
        return None
    shown = [{**vars(s), "table": table(s.shown), **results.pictures.figure(s.name)} for s in results.compared]
    return Section("Comparisons", "comparisons", render("comparisons", {"comparisons": shown}))
