"""What comparisons and sweeps are made of: their rows, and the values of a sweep's keys in each."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline_lib import registry
from pipeline_lib.config.models import Experiment, Sweep
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.published import ROWS

if TYPE_CHECKING:
    from pipeline_lib.config.plan import Instance

TAKEN = {"scores", "trends", "costs", "theory", "exact", "coverage", "leak", "training", "fig2", "fig3"}


def check_published(exp: Experiment) -> None:
    """Raise BadConfig for a published row that is not known."""
    for method_name, method in exp.methods.items():
        for name, variant in method.variants.items():
            if variant.published is not None and variant.published not in ROWS:
                raise BadConfig(
                    f"methods.{method_name}.variants.{name}: no published row '{variant.published}'; "
                    f"{registry.nearest(variant.published, ROWS)}"
                )


def check_names(exp: Experiment) -> None:
    """Raise BadConfig where a comparison or sweep has the name of another table or figure."""
    for kind, given, other in (("comparisons", exp.comparisons, exp.sweeps), ("sweeps", exp.sweeps, {})):
        for name in given:
            if name in {*TAKEN, *other} or name.startswith(("fig2-", "fig3-")):
                raise BadConfig(f"{kind}.{name}: another table or figure has this name; choose another, such as fig4.")


def comparisons(exp: Experiment) -> dict[str, Any]:
    """Every comparison with its rows as [method, variant]."""
    return {
        name: {"title": one.title, "note": one.note, "rows": _rows(exp, one.rows, f"comparisons.{name}")}
        for name, one in exp.comparisons.items()
    }


def sweeps(exp: Experiment, instances: "Sequence[Instance]") -> dict[str, Any]:
    """Every sweep with its rows, and the values of its keys for each of them on each dataset.

    Raises BadConfig where a value is no number, or two runs of one line (or of the heat map) have the same place.
    """
    found = {}
    for name, one in exp.sweeps.items():
        rows = _rows(exp, one.rows, f"sweeps.{name}")
        points = list(_points(exp, one, rows, instances, f"sweeps.{name}"))
        _refuse_twice(points, f"sweeps.{name}")
        found[name] = {**one.model_dump(mode="json"), "rows": rows, "points": points}
    return found


def _rows(exp: Experiment, names: Sequence[str], where: str) -> list[list[str]]:
    """(method, variant) of every row; a grid is named as a whole or by its points."""
    known: dict[str, list[list[str]]] = {}
    for method_name, method in exp.methods.items():
        for variant_name, variant in method.variants.items():
            for name in filter(None, (variant.family, variant_name)):
                known.setdefault(f"{method_name}/{name}", []).append([method_name, variant_name])
    if unknown := next((n for n in names if n not in known), None):
        raise BadConfig(f"{where}.rows: no method/variant '{unknown}'; {registry.nearest(unknown, known)}")
    found = [row for name in names for row in known[name]]
    return [row for i, row in enumerate(found) if row not in found[:i]]


def _points(
    exp: Experiment, sweep: Sweep, rows: Sequence[Sequence[str]], instances: "Sequence[Instance]", where: str
) -> Iterator[dict[str, Any]]:
    lines = _lines(exp, rows)
    first = {(i.dataset, i.method, i.variant): i for i in reversed(instances)}  # seeds have one configuration
    for dataset in exp.datasets:
        for method, variant in rows:
            if one := first.get((dataset, method, variant)):
                yield {
                    "dataset": dataset,
                    "method": method,
                    "variant": variant,
                    "line": lines[method, variant],
                    "x": _value(one, sweep.x, f"{where}.x"),
                    "y": _value(one, sweep.y, f"{where}.y") if sweep.y else None,
                }


def _lines(exp: Experiment, rows: Sequence[Sequence[str]]) -> dict[tuple[str, str], str]:
    """Which rows form a line: those of a method, but each grid its own where a method has several."""
    families = {(m, v): exp.methods[m].variants[v].family for m, v in rows}
    several = {m for m, _ in families if len({f for (n, _), f in families.items() if n == m and f}) > 1}
    return {(m, v): f"{m}/{family}" if family and m in several else m for (m, v), family in families.items()}


def _value(one: "Instance", key: str, where: str) -> float:
    value: Any = one.run.model_dump(mode="json")
    for step in key.split("."):
        if not isinstance(value, dict) or step not in value:
            valid = list(value) if isinstance(value, dict) else []
            raise BadConfig(f"{where}: {one.method}/{one.variant} has no key '{key}'; {registry.nearest(step, valid)}")
        value = value[step]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadConfig(f"{where}: '{key}' of {one.method}/{one.variant} is {value!r}; a sweep needs numbers.")
    return value


def _refuse_twice(points: Sequence[dict[str, Any]], where: str) -> None:
    places: dict[Any, dict[str, Any]] = {}
    for point in points:
        line = "" if point["y"] is not None else point["line"]
        other = places.setdefault((point["dataset"], line, point["x"], point["y"]), point)
        if other is not point:
            names = " and ".join(f"{p['method']}/{p['variant']}" for p in (other, point))
            raise BadConfig(
                f"{where}.rows: {names} have the same place on {point['dataset']}; leave one out, or give y."
            )
