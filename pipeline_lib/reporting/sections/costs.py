"""The section of what everything cost."""

import pandas as pd

from pipeline_lib.reporting import relative_costs
from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.summaries import cost_summary


def section(results: Results) -> Section:
    """A training step beside that of its control, and every job."""
    experiment, tables = results.experiment, results.tables
    steps = relative_costs.measure(results.folder, experiment, tables)
    values = {
        "experiment": experiment,
        "cost_reading": relative_costs.READING,
        "relative_costs": table(relative_costs.shown(steps, experiment)),
        "costs": cost_table(tables["costs"]),
    }
    return Section("Costs", "costs", render("costs", values))


def cost_table(costs: pd.DataFrame) -> Table:
    """The costs without names of hosts and numbers of jobs."""
    return table(cost_summary(costs).drop(columns=["host", "job"], errors="ignore"))
