"""The section of scores against the progress of training."""

from pipeline_lib.reporting import progress, trainings
from pipeline_lib.reporting.page import Results, Section, render, table


def section(results: Results) -> Section | None:
    """None where no training keeps snapshots."""
    if not results.experiment["progress"]:
        return None
    rows = progress.equal_costs(results.folder, results.experiment, results.tables)
    points = progress.points(results.folder, results.experiment, results.tables)
    values = {
        "figure": results.pictures.figure(progress.NAME),
        "reading": progress.READING,
        "table": table(progress.shown(rows, results.experiment, results.tables)) if len(rows) else None,
        "lead": progress.LEAD,
        "how": progress.HOW,
        "points": table(points, (trainings.COLUMN,), ("step",)),
        "spread_note": trainings.PROSE if trainings.COLUMN in points else "",
    }
    return Section("Scores against training", "progress", render("progress", values))
