"""The section of the experiment's comparisons and sweeps."""

import pandas as pd

from pipeline_lib.reporting.page import Results, Section, Table, render, table
from pipeline_lib.reporting.samplings import drawn
from pipeline_lib.reporting.sections.scores import protocol
from pipeline_lib.reporting.summaries import RUN

NUMBERS = ("score", "difference", "seconds a step", "CPU seconds a step")  # texts that begin with a number


def section(results: Results) -> Section | None:
    """None where the experiment compares nothing."""
    if not results.compared:
        return None
    first = {note: s.name for s in reversed(results.compared) for note in s.beneath}  # where each is said, once
    shown = [
        {
            **vars(s),
            "beneath": [note for note in s.beneath if first[note] == s.name],
            "table": table(s.shown, NUMBERS, ("method", "score")),
            "trainings": table(s.trainings, NUMBERS, ("method",)),
            "protocol": protocol_table(s.rows, results),
            **results.pictures.figure(s.name),
        }
        for s in results.compared
    ]
    return Section("Comparisons", "comparisons", render("comparisons", {"comparisons": shown}))


def protocol_table(rows: pd.DataFrame, results: Results) -> Table:
    """How the scores of a comparison came about: extractor, reference, samples, library; a row for each way."""
    ways = protocol(results.tables["scores"])
    mine = ways.merge(rows[[*RUN, "metric"]].drop_duplicates(), on=[*RUN, "metric"])
    mine = mine.assign(drawn=[drawn(results.experiment["samplings"][name]) for name in mine["sampler"]])
    return table(mine.drop(columns=["method", "variant"]).drop_duplicates(), (), ("dataset", "metric"))
