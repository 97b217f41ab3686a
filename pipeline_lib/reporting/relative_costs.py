"""What a training step of every method costs, and how many times that of its control's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.records.costs import OTHERS, crowded
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import COSTS_RELATIVE, write
from pipeline_lib.reporting.collect import joined
from pipeline_lib.reporting.comparisons import Tables, trainings
from pipeline_lib.reporting.summaries import label, markdown, number

NAME = "costs_relative"
READING = (
    "Means over seeds. Seconds a step: the median of a training; CPU seconds count all threads, and neighbours on the "
    "machine hardly. Memory: the largest over seeds, of tensors on a GPU, and on a CPU of the whole process with its "
    "libraries. Network calls: images through the network per training image, counted forward, with gradient or "
    "without; expected is what the algorithm says. A number in brackets is that of the control times so much: only "
    "where both have the same network, path and batch, and were trained on the same machine; else the note says why."
)
COSTS = ("step_seconds", "step_cpu_seconds", "peak_memory_mb", "network_calls")
SHOWN = {
    "seconds a step": "step_seconds",
    "CPU seconds a step": "step_cpu_seconds",
    "memory (MB)": "peak_memory_mb",
    "network calls": "network_calls",
}


def measure(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Rows of `COSTS_RELATIVE`: every variant of which a training is done, in the order of the plan."""
    trained = trainings(folder, experiment, tables["costs"])
    return joined([pd.DataFrame(_rows(experiment, trained))], COSTS_RELATIVE)


def _rows(experiment: Mapping[str, Any], trained: Mapping[Any, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for one in experiment["costs"]:
        dataset, method, variant = (one[k] for k in ("dataset", "method", "variant"))
        mine = trained.get((dataset, method, variant))
        if mine is None:
            continue
        control = experiment["methods"][method]["variants"][variant]["control"]
        other = trained.get((dataset, *control.split("/"))) if control else None
        note = _why_not(mine, other, one["apart"]) if control else ""
        costs = _costs(mine)
        row = {
            **{k: one[k] for k in ("dataset", "method", "variant", "expected_calls")},
            "label": label(experiment, method, variant),
            "control": control or "",
            "seeds": len(mine),
            **costs,
            "device": ", ".join(sorted(set(mine["device"]))),
            "note": note,
        }
        if other is not None and not note:
            common = mine.index.intersection(other.index)
            ratios = _costs(mine.loc[common]), _costs(other.loc[common])
            row |= {f"relative_{k}": ratios[0][k] / ratios[1][k] for k in COSTS}
        yield row


def _costs(rows: pd.DataFrame) -> dict[str, float]:
    """Means over seeds, and the most memory; what was not measured is NaN."""
    numbers = rows.reindex(columns=[*COSTS, "peak_gpu_memory_mb"]).astype(float)
    on_cpu = rows["device"].eq("cpu").all()
    found = {k: float(numbers[k].mean()) for k in COSTS}
    found["peak_memory_mb"] = float(numbers["peak_memory_mb" if on_cpu else "peak_gpu_memory_mb"].max())
    return found | ({} if on_cpu else {"step_cpu_seconds": float("nan")})


def _why_not(mine: pd.DataFrame, control: pd.DataFrame | None, apart: list[str]) -> str:
    """Why costs are not given relative to the control; empty where they are."""
    if apart:
        return f"differs from its control in {', '.join(apart)}"
    if control is None or mine.index.intersection(control.index).empty:
        return "its control is not trained yet with these seeds"
    if any(map(crowded, [*mine["device"], *control["device"]])):
        return f"one of the two was {OTHERS}"
    machines = [set(zip(rows["device"], rows["host"].fillna(""), strict=True)) for rows in (mine, control)]
    return "" if machines[0] == machines[1] and len(machines[0]) == 1 else "its control was trained on another machine"


def shown(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """The rows for a reader; a column that is empty throughout is left out."""
    texts = pd.DataFrame(
        {
            "dataset": rows["dataset"],
            "method": rows["label"],
            "control": [label(experiment, *c.split("/")) if c else "" for c in rows["control"]],
            "seeds": rows["seeds"],
            **{name: list(map(_with_ratio, rows[k], rows[f"relative_{k}"])) for name, k in SHOWN.items()},
            "expected": rows["expected_calls"],
            "note": rows["note"],
        }
    )
    return texts.drop(columns=[c for c in texts if len(texts) and texts[c].replace("", pd.NA).isna().all()])


def _with_ratio(value: float, ratio: float) -> str:
    """'0.031 (2.4x)', without the factor where there is none."""
    return f"{number(value)} ({ratio:.2f}x)" if pd.notna(ratio) else number(value)


def write_table(folder: Path, experiment: Mapping[str, Any], tables: Tables) -> None:
    """Write `tables/costs_relative.{parquet,csv,md}`."""
    rows, target = measure(folder, experiment, tables), folder / "tables" / NAME
    write(target.with_suffix(".parquet"), rows, COSTS_RELATIVE, {"experiment": experiment["experiment"]})
    write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
    write_text(
        target.with_suffix(".md"), f"# Costs of a training step\n\n{READING}\n\n{markdown(shown(rows, experiment))}"
    )
