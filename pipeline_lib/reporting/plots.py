"""Data of the plots whose curves a reader switches on and off; `templates/plot.js` draws them.

A plot is a JSON object: `keys` are what a reader chooses (dataset, sampling, ...), and each of its `curves` has the
value `of` every key, its name (`who`), its `look` (colour, dashes), and points `x`, `y`, with `low`, `high` and the
`null` where they are known. An `x` of null is the place of clean data, beyond the end of a log-SNR axis.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline_lib.reporting.curves import style
from pipeline_lib.reporting.figures import Who
from pipeline_lib.reporting.summaries import label

KEYS = ["quantity", "dataset", "sampling", "kernel", "bandwidth"]
OF_ERRORS = ["dataset", "sampler", "nfe", "kernel", "bandwidth", "method", "variant"]
LAWS = {"marginal": "MMD²", "training-inputs": "MMD² against training inputs"}
DIFFERENCE = "difference to the control"
LARGEST = 300  # points of a training curve

Plot = dict[str, Any]


def error_plot(tables: Mapping[str, pd.DataFrame], experiment: Mapping[str, Any]) -> Plot:
    """Every curve of the cumulative error and of its difference to the control: means over seeds, with the interval of
    one estimate."""
    errors, differences = tables["cumulative_error"], tables["cumulative_error_difference"]
    curves = [c for law, name in LAWS.items() for c in _curves(errors[errors["law"].eq(law)], name, experiment)]
    steps = differences[differences["of"].eq("step")].drop(columns="mmd2").rename(columns={"difference": "mmd2"})
    curves += _curves(steps, DIFFERENCE, experiment)
    return {"keys": KEYS, "x": "log-SNR, nats (sampling runs →)", "clean": "x₀", "y": "MMD²", "curves": curves}


def _curves(rows: pd.DataFrame, quantity: str, experiment: Mapping[str, Any]) -> Iterator[Plot]:
    named = {c: (c, "mean") for c in ("log_snr", "mmd2", "low", "high", "null_quantile") if c in rows}
    means = rows.groupby([*OF_ERRORS, "step"], sort=False).agg(**named).reset_index()
    for key, curve in means.groupby(OF_ERRORS, sort=False):
        dataset, sampler, nfe, kernel, bandwidth, method, variant = map(str, key)
        points = curve.sort_values("step")
        null = {"null": numbers(points["null_quantile"])} if "null_quantile" in points else {}
        yield {
            "of": [quantity, dataset, f"{sampler}, {nfe} calls", kernel, bandwidth],
            "who": label(experiment, method, variant),
            "look": look(experiment, method, variant),
            "x": numbers(points["log_snr"]),
            "y": numbers(points["mmd2"]),
            "low": numbers(points["low"]),
            "high": numbers(points["high"]),
            **(null if any(v is not None for v in null.get("null", ())) else {}),
        }


def training_plot(histories: Mapping[Who, pd.DataFrame], experiment: Mapping[str, Any]) -> Plot:
    """Every logged quantity of every training against the images seen: means over seeds."""
    curves: list[Plot] = []
    runs: dict[tuple[str, str, str], list[pd.DataFrame]] = {}
    for (dataset, method, variant, _), rows in histories.items():
        runs.setdefault((dataset, method, variant), []).append(rows)
    for (dataset, method, variant), found in runs.items():
        for key, rows in pd.concat(found).groupby("key", sort=False):
            points = rows.groupby("images")["value"].mean()
            points = points.iloc[:: -(-len(points) // LARGEST)]
            curves.append(
                {
                    "of": [str(key), dataset],
                    "who": label(experiment, method, variant),
                    "look": look(experiment, method, variant),
                    "x": numbers(points.index.to_series()),
                    "y": numbers(points),
                }
            )
    return {
        "keys": ["quantity", "dataset"],
        "x": "images seen",
        "clean": "",
        "y": "mean since the line before",
        "curves": curves,
    }


def look(experiment: Mapping[str, Any], method: str, variant: str) -> list[str]:
    """Colour and SVG dashes of a method's variant, as in the figures."""
    colour, dash = style(experiment, method, variant)
    return [colour, "" if isinstance(dash, str) else " ".join(f"{2 * n:g}" for n in dash[1])]


def numbers(values: "pd.Series[float]") -> list[float | None]:
    """At four significant digits; None where there is no finite number."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.astype(float)]


def script(plot: Plot) -> Markup:
    """The plot as the content of a script element."""
    return Markup(json.dumps(plot, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"))
