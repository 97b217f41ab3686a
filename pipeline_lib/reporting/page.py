"""What the sections of the report have in common: the experiment's results, pictures, tables and templates."""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline_lib.data.grid import png
from pipeline_lib.exits import PipelineError
from pipeline_lib.records.store import Manifest
from pipeline_lib.reporting import comparisons, samplings, sweeps
from pipeline_lib.reporting.collect import Job, State, collect, jobs, state
from pipeline_lib.reporting.figures import Who, histories
from pipeline_lib.reporting.summaries import number

IMAGE_BYTES = 15_000_000  # of all pictures in the page: base64 makes a third more of it, and the page stays below 25 MB
LARGEST_TABLE = 1000  # rows; the CSV file has all
LARGEST_SVG = 300_000  # curves of very many points are smaller as PNG
MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Section:
    """A section of the page: its heading, the anchor that links lead to, and what stands below the heading."""

    title: str
    anchor: str
    html: Markup


@dataclass
class Pictures:
    """Pictures for the page as data URIs, until the budget is spent; later ones are only linked."""

    folder: Path
    left: int = IMAGE_BYTES

    def embed(self, path: Path) -> dict[str, str]:
        """{source, link}: source is '' for a picture that is missing or over the budget, link is '' if missing."""
        if not path.is_file():
            return {"source": "", "link": ""}
        link = os.path.relpath(path, self.folder)
        return {"source": self._uri(path.read_bytes(), MEDIA[path.suffix]), "link": link}

    def column(self, path: Path, count: int) -> str:
        """The first `count` images of an array uint8 (N,C,H,W) above each other; '' without it, or over the budget."""
        try:
            images = np.asarray(np.load(path, mmap_mode="r")[:count])
        except (OSError, ValueError):
            return ""
        return self._uri(png(images, 1), "image/png")

    def _uri(self, content: bytes, media: str) -> str:
        """A data URI, or '' where it is over the budget."""
        if len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:{media};base64,{base64.b64encode(content).decode()}"

    def figure(self, name: str) -> dict[str, str]:
        """A drawn figure, as SVG unless that is very large and there is a PNG."""
        svg = self.folder / "figures" / f"{name}.svg"
        drawn = svg.with_suffix(".png")
        small = svg.is_file() and svg.stat().st_size <= LARGEST_SVG
        return self.embed(svg if small or not drawn.is_file() else drawn)

    def stored(self, made: Manifest | None, name: str) -> dict[str, str]:
        """A picture of a stored result; nothing where it is gone, or where the manifest has a hash that it lacks."""
        if made is None:
            return {"source": "", "link": ""}
        try:
            return self.embed(made.file(name) if name in made.files else Path(made.folder) / name)
        except PipelineError:
            return {"source": "", "link": ""}


@dataclass
class Table:
    """A table of the page: column names, rows of texts, and which columns are numbers.

    `same` is what all rows share, said above the table and not repeated in it. `marks` are the places of rows that are
    no result but a yardstick, such as floor and ceiling.
    """

    columns: list[str]
    rows: list[list[str]]
    numeric: set[str] = field(default_factory=set)
    total: int = 0
    same: dict[str, str] = field(default_factory=dict)
    marks: set[int] = field(default_factory=set)


class Results:
    """Everything that an experiment has in its folder, read when a section first asks for it."""

    def __init__(self, folder: Path, experiment: dict[str, Any]) -> None:
        self.folder = folder
        self.experiment = experiment
        self.pictures = Pictures(folder)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The collected records."""
        return collect(self.folder, self.experiment)

    @cached_property
    def states(self) -> dict[str, tuple[Job, State]]:
        """Place -> every job that the experiment expects, and how far it is."""
        return {job.place: (job, state(self.folder, job)) for job in jobs(self.experiment)}

    @cached_property
    def histories(self) -> dict[Who, pd.DataFrame]:
        """Who was trained -> what was logged."""
        return dict(histories(self.folder, self.experiment))

    @cached_property
    def compared(self) -> list[comparisons.Section]:
        """Comparisons and sweeps of the experiment, and its samplings where there are several."""
        given = self.folder, self.experiment, self.tables
        several = [samplings.section(*given)] if len(self.experiment["samplings"]) > 1 else []
        return [*comparisons.sections(*given), *sweeps.sections(*given), *several]


def table(rows: pd.DataFrame, numeric: Iterable[str] = (), varies: Iterable[str] = ()) -> Table:
    """A frame as texts at readable precision; of a very long one the beginning.

    Columns of which all rows have the same are moved to `same` (with several rows; never those in `varies`), and
    dropped where that is nothing. `numeric` names columns of texts that begin with a number, such as '4.2 ± 0.1'.
    """
    texts = rows.map(number)
    constant = [c for c in rows.columns if len(rows) > 1 and c not in set(varies) and texts[c].nunique() == 1]
    same = {_heading(c): text for c in constant if (text := texts[c].iloc[0])}
    shown = rows.drop(columns=constant)
    numbers = {_heading(c) for c in shown.columns if c in set(numeric) or pd.api.types.is_numeric_dtype(shown[c])}
    columns = [_heading(c) for c in shown.columns]
    return Table(columns, texts[shown.columns][:LARGEST_TABLE].to_numpy().tolist(), numbers, len(rows), same)


def _heading(column: Any) -> str:
    return str(column).replace("x_0", "x₀").replace("_", " ")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline_lib.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, values: Mapping[str, Any]) -> Markup:
    """`templates/<template>.html.j2`; raises jinja2.UndefinedError where a value that it shows is not given."""
    return Markup(_environment().get_template(f"{template}.html.j2").render(values))
