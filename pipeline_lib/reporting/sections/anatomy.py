"""The section of how the error comes about: what was measured beside MMD^2."""

from pipeline_lib.reporting import anatomy
from pipeline_lib.reporting.page import Results, Section, render


def section(results: Results) -> Section | None:
    """None where no figure of it is drawn."""
    drawn = [{"title": title, **results.pictures.figure(name)} for name, title in anatomy.drawings(results.experiment)]
    figures = [figure for figure in drawn if figure["link"]]
    if not figures:
        return None
    values = {"experiment": results.experiment, "figures": figures}
    return Section("Anatomy of the error", "anatomy", render("anatomy", values))
