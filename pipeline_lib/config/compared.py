"""What comparisons and sweeps are made of: their rows, the values of a sweep's keys, and what else differs in them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline_lib import registry
from pipeline_lib.config.base import load_part
from pipeline_lib.config.models import Experiment, Sweep
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.published import ROWS

if TYPE_CHECKING:
    from pipeline_lib.config.plan import Instance

TAKEN = {
    "scores",
    "score_difference",
    "cumulative_error",
    "cumulative_error_difference",
    "sampling_difference",
    "samplings",
    "trends",
    "costs",
    "costs_relative",
    "theory",
    "exact",
    "coverage",
    "leak",
    "corrections",
    "training",
    "progress",
    "equal_costs",
    "averages",
    "fig2",
    "fig3",
}


def check_published(exp: Experiment) -> None:
    """Raise BadConfig for a published row that is not known."""
    for method_name, method in exp.methods.items():
        for name, variant in method.variants.items():
            if variant.published is not None and variant.published not in ROWS:
                raise BadConfig(
                    f"methods.{method_name}.variants.{name}: no published row '{variant.published}'; "
                    f"{registry.nearest(variant.published, ROWS)}"
                )
    known = [f"{m}/{v}" for m, method in exp.methods.items() for v in method.variants]
    for name, sampling in exp.sampling.items():
        for who, row in sampling.published.items():
            for given, there, what in ((who, known, "method/variant"), (row, ROWS, "published row")):
                if given not in there:
                    raise BadConfig(f"sampling.{name}.published: no {what} '{given}'; {registry.nearest(given, there)}")


def check_names(exp: Experiment) -> None:
    """Raise BadConfig where a comparison or sweep has the name of another table or figure."""
    for kind, given, other in (("comparisons", exp.comparisons, exp.sweeps), ("sweeps", exp.sweeps, {})):
        for name in given:
            if name in {*TAKEN, *other} or name.startswith(("fig2-", "fig3-")):
                raise BadConfig(f"{kind}.{name}: another table or figure has this name; choose another, such as fig4.")


def comparisons(exp: Experiment, instances: "Sequence[Instance]") -> dict[str, Any]:
    """Every comparison with its rows as [method, variant], and what they differ in from their controls."""
    found = {}
    for name, one in exp.comparisons.items():
        rows = _rows(exp, one.rows, f"comparisons.{name}")
        differences = from_controls(exp, instances, rows)
        found[name] = {"title": one.title, "note": one.note, "rows": rows, "differences": differences}
    return found


def sweeps(exp: Experiment, instances: "Sequence[Instance]") -> dict[str, Any]:
    """Every sweep with its rows, and the values of its keys for each of them on each dataset.

    Raises BadConfig where a value is no number, or two runs of one line (or of the heat map) have the same place.
    """
    found = {}
    for name, one in exp.sweeps.items():
        rows = _rows(exp, one.rows, f"sweeps.{name}")
        points = list(_points(exp, one, rows, instances, f"sweeps.{name}"))
        _refuse_twice(points, f"sweeps.{name}")
        differences = [*_along(one, points, instances), *from_controls(exp, instances, rows, (one.x, one.y))]
        found[name] = {**one.model_dump(mode="json"), "rows": rows, "points": points, "differences": differences}
    return found


def from_controls(
    exp: Experiment,
    instances: "Sequence[Instance]",
    rows: Sequence[Sequence[str]],
    axes: Collection[str | None] = (),
) -> list[str]:
    """Sentences on rows that differ from their controls in more than the objective, and the `axes` of a sweep.

    `training.mmd_group` is left out where the control has none, since its objective then compares no groups, and the
    noise where PFGM++ is compared with EDM, since it is the method.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    first = _first(instances)
    for dataset in exp.datasets:
        for method, variant in rows:
            about = exp.methods[method].variants[variant]
            one, control = (first.get((dataset, *who)) for who in ((method, variant), _who(about.control)))
            if one and control:
                keys = _differing([_values(one), _values(control)])
                keys = [k for k in keys if not (k.startswith("objective.") or k in axes)]
                if control.run.training.mmd_group is None:
                    keys = [k for k in keys if k != "training.mmd_group"]
                if (one.run.diffusion.path, control.run.diffusion.path) == ("pfgm", "edm"):  # the noise is the method
                    keys = [k for k in keys if k not in ("diffusion.path", "diffusion.extra_dimensions")]
                names = found.setdefault((str(about.control), ", ".join(keys), dataset), [])
                names.append(f"{method}/{about.family or variant}")
    return [
        f"{', '.join(dict.fromkeys(names))} ({dataset}): differs from its control {control} in {keys}, too."
        for (control, keys, dataset), names in found.items()
        if keys
    ]


def costs(exp: Experiment, instances: "Sequence[Instance]") -> list[dict[str, Any]]:
    """For every trained variant of a dataset: how many images its objective says that it puts through the network for
    one training image (None where it does not say), and the keys by which its steps do not compare with its control's.
    """
    first, found = _first(instances), []
    for (dataset, method, variant), one in reversed(first.items()):
        control = first.get((dataset, *_who(exp.methods[method].variants[variant].control)))
        module, options = load_part("objectives", one.run.objective)
        found.append(
            {
                "dataset": dataset,
                "method": method,
                "variant": variant,
                "expected_calls": module.network_calls(options, one.run) if hasattr(module, "network_calls") else None,
                "apart": _other_work(one, control) if control else [],
            }
        )
    return found


def _other_work(one: "Instance", control: "Instance") -> list[str]:
    """Keys that change the work of a network call or the images of a step: not dropout, and not the noise of PFGM++."""
    keys = _differing([_values(one), _values(control)])
    work = {"diffusion.path", "diffusion.learned_variance", "training.batch_size", "training.threads"}
    keys = [k for k in keys if k in work or (k.startswith("network.") and k != "network.dropout")]
    noise_alone = (one.run.diffusion.path, control.run.diffusion.path) == ("pfgm", "edm")
    return [k for k in keys if not (noise_alone and k == "diffusion.path")]


def _along(sweep: Sweep, points: Sequence[dict[str, Any]], instances: "Sequence[Instance]") -> list[str]:
    """Sentences on lines, or a heat map, whose points differ in more than the axes."""
    first = _first(instances)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for p in points:
        values = _values(first[p["dataset"], p["method"], p["variant"]])
        groups.setdefault((p["dataset"], "" if sweep.y else p["line"]), []).append(values)
    found = []
    for (dataset, line), runs in groups.items():
        if keys := [k for k in _differing(runs) if k not in (sweep.x, sweep.y)]:
            found.append(f"{line or 'all points'} ({dataset}): the points differ in {', '.join(keys)}, too.")
    return found


def _first(instances: "Sequence[Instance]") -> "dict[tuple[str, ...], Instance]":
    """(dataset, method, variant) -> its instance of the first seed; seeds have one configuration."""
    return {(i.dataset, i.method, i.variant): i for i in reversed(instances)}


def _who(name: str | None) -> list[str]:
    return name.split("/") if name else []


def _values(one: "Instance") -> dict[str, Any]:
    """Every dotted key of a run with its value, and the run that it starts from.

    Which weights are kept beside the main average is left out: it does not change that one.
    """
    init = one.init.rpartition("/")[0] if one.init else None  # without the seed
    run = one.run.model_dump(mode="json", exclude={"training": {"averages", "snapshots"}})
    return {**dict(_flat(run)), "init_from": init}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that have not one value in all runs; an option that a run's objective does not have counts as a value."""
    keys = dict.fromkeys(k for run in runs for k in run)
    return [k for k in keys if any(run.get(k, ...) != runs[0].get(k, ...) for run in runs)]


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
    first = _first(instances)
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
