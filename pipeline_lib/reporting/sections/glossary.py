"""The section that explains the report's words."""

from pipeline_lib.reporting.page import Results, Section, render
from pipeline_lib.reporting.summaries import POWER


def section(results: Results) -> Section:
    """The same in every report."""
    return Section("Glossary", "glossary", render("glossary", {"power": POWER}))
