"""Tidy Parquet records: every column declared with unit and description, provenance in the file's metadata.

Stages write what they measured; who was measured (dataset, method, ...) is known from the place of the file, and the
tables stage adds it as the columns of `IDENTITY`. So a record can be shared by experiments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import atomic

VERSION = "1"


@dataclass(frozen=True)
class Column:
    """One column: arrow type name, unit ('' if it has none), description."""

    name: str
    type: str
    unit: str
    description: str


IDENTITY = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method; 'real' and 'noise' are floor and ceiling"),
    Column("preset", "string", "", "preset of the method: paper, released, or none"),
    Column("variant", "string", "", "named setting of the method"),
    Column("seed", "int64", "", "training seed"),
    Column("sampler", "string", "", "named sampling of the experiment"),
]

CELL = [Column("nfe", "int64", "calls", "network calls per image, counted while sampling")]

ERRORS = [
    *CELL,
    Column("kernel", "string", "", "laplace (on the L2 norm), gaussian, rational-quadratic"),
    Column("bandwidth", "string", "", "shared: one kernel for all t; per-t: one for each"),
    Column("statistic", "string", "", "u (unbiased) or v"),
    Column("step", "int64", "", "place in the grid: 0 is x_T, the last is x_0"),
    Column("t", "float64", "path units", "time on the path"),
    Column("log_snr", "float64", "nats", "ln(a_t^2 / s_t^2); infinite at clean data"),
    Column("length_scale", "float64", "scaled pixels", "bandwidth of the kernel"),
    Column("mmd2", "float64", "", "squared maximum mean discrepancy of sampled against forward x_t"),
    Column("se", "float64", "", "jackknife standard error"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column(
        "null_quantile", "float64", "", "quantile of the permutation null at the confidence level; empty: not drawn"
    ),
    Column("p_value", "float64", "", "share of permutations at least as large; empty: not drawn"),
    Column("n", "int64", "images", "sampled chains"),
    Column("m", "int64", "images", "forward samples"),
    Column("confidence", "float64", "", "level of the interval and of the null's quantile"),
]

TRENDS = [
    *CELL,
    Column("kernel", "string", "", "as in errors"),
    Column("bandwidth", "string", "", "as in errors"),
    Column("trend", "string", "", "growth-ratio, rank-correlation or exponential-rate"),
    Column("value", "float64", "", "the statistic of the curve"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column("confidence", "float64", "", "level of the interval"),
]

SCORES = [
    *CELL,
    Column("control", "string", "", "floor: held-out real images, ceiling: uniform noise, empty: samples of a run"),
    Column("metric", "string", "", "FID, or FD (<extractor>)"),
    Column("value", "float64", "", "the score; empty where it is pending"),
    Column("status", "string", "", "done, or pending with the reason in note"),
    Column("note", "string", "", "why a cell is pending, or what a reader must know"),
    Column("extractor", "string", "", "feature extractor"),
    Column("extractor_sha", "string", "", "sha256 of the extractor's weights"),
    Column("library", "string", "", "code that computed the score, with its version"),
    Column("resize", "string", "", "how images reach the extractor's size"),
    Column("samples", "int64", "images", "images scored"),
    Column("reference_images", "int64", "images", "images in the reference statistics"),
    Column("reference_split", "string", "", "split that the reference statistics come from"),
    Column("reference_sha", "string", "", "sha256 of the reference statistics"),
]

COSTS = [
    Column("stage", "string", "", "stage of the pipeline"),
    Column("seconds", "float64", "s", "wall time over all segments"),
    Column("segments", "int64", "", "times that the job was started"),
    Column("images", "float64", "images", "images trained on or drawn"),
    Column("images_per_second", "float64", "images/s", "throughput"),
    Column("peak_memory_mb", "float64", "MB", "largest resident memory of the process"),
    Column("peak_gpu_memory_mb", "float64", "MB", "largest memory allocated on the device; empty on a CPU"),
    Column("device", "string", "", "device name"),
    Column("host", "string", "", "host name"),
]

HISTORY = [
    Column("step", "int64", "steps", "optimiser steps done"),
    Column("images", "int64", "images", "images seen"),
    Column("key", "string", "", "what was logged"),
    Column("value", "float64", "", "its mean since the line before"),
]

SCHEMAS: dict[str, list[Column]] = {
    "errors": ERRORS,
    "trends": TRENDS,
    "scores": SCORES,
    "costs": COSTS,
    "history": HISTORY,
}


def schema(columns: Sequence[Column], provenance: Mapping[str, Any] | None = None) -> pa.Schema:
    """The arrow schema with unit and description as field metadata."""
    fields = [
        pa.field(c.name, getattr(pa, c.type)(), metadata={"unit": c.unit, "description": c.description})
        for c in columns
    ]
    metadata = {"schema_version": VERSION, "provenance": json.dumps(dict(provenance or {}), sort_keys=True)}
    return pa.schema(fields, metadata=metadata)


def frame(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Rows as a frame with exactly the declared columns, in order; raises ValueError for an undeclared one."""
    given = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    names = [c.name for c in columns]
    if unknown := set(given.columns) - set(names):
        raise ValueError(f"undeclared columns: {sorted(unknown)}")
    return given.reindex(columns=names)


def write(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    columns: Sequence[Column],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write rows atomically; a column that the schema does not declare is refused, a missing one becomes null."""
    table = pa.Table.from_pandas(frame(rows, columns), schema=schema(columns, provenance), preserve_index=False)
    table = table.replace_schema_metadata(schema(columns, provenance).metadata)
    with atomic(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path | str, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """Read a record; with `columns`, raise BadData where it lacks one of them."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData(f"the record {path} cannot be read ({error}); delete it and run again.") from None
    if columns and (missing := {c.name for c in columns} - set(table.column_names)):
        raise BadData(f"the record {path} lacks the columns {sorted(missing)}; delete it and run again.")
    return table.to_pandas()


def provenance(path: Path | str) -> dict[str, Any]:
    """The provenance that a record was written with."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(b"provenance", b"{}"))
