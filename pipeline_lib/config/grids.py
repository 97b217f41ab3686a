"""A variant or a sampling with a grid becomes one of them for every combination of its values."""

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from pipeline_lib.config.base import parse
from pipeline_lib.config.load import merge
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Axis, Method, Sampling, Variant

Chosen = dict[str, Any]  # short name of an axis -> its value


def expand(methods: "dict[str, Method]") -> "dict[str, Method]":
    """Methods without grids: `sweep` with the grid L of 1, 2 becomes `sweep-L1`, `sweep-L2`, in its place.

    A point inherits everything else of its variant, and knows its name (`Variant.family`). Raises BadConfig where two
    variants would have one name, or a grid has a published row.
    """
    return {name: method.model_copy(update={"variants": _variants(name, method)}) for name, method in methods.items()}


def _variants(name: str, method: "Method") -> "dict[str, Variant]":
    found: dict[str, Variant] = {}
    for variant_name, variant in method.variants.items():
        where = f"methods.{name}.variants.{variant_name}"
        if variant.grid and variant.published:
            raise BadConfig(f"{where}: a variant with a grid has no published row; remove published or grid.")
        points = {_leaf(variant_name, chosen): _variant(variant_name, variant, chosen) for chosen in _all(variant.grid)}
        _refuse_names(points, found.keys() | (method.variants.keys() - {variant_name}), where, "variant")
        found |= points
    return found


def _variant(name: str, variant: "Variant", chosen: Chosen) -> "Variant":
    if not chosen:
        return variant
    run = variant.run
    for short, value in chosen.items():
        run = merge(run, _nested(variant.grid[short].key.split("."), value))
    point = variant.model_copy(update={"grid": {}, "run": run})
    point._family = name
    return point


def _nested(path: list[str], value: Any) -> Mapping[str, Any]:
    return {path[0]: _nested(path[1:], value)} if path else value


def expand_samplings(samplings: "dict[str, Sampling]") -> "dict[str, Sampling]":
    """Samplings without grids: `ddim` with the grid eta of 0, 1 becomes `ddim-eta0`, `ddim-eta1`, in its place.

    A control that is itself a grid stands for its point of the same values. Raises BadConfig where two samplings would
    have one name, a key or value is refused, or such a control has an axis of its own.
    """
    found: dict[str, Sampling] = {}
    for name, sampling in samplings.items():
        control = samplings.get(sampling.control or "")
        points = {_leaf(name, chosen): _sampling(name, sampling, chosen, control) for chosen in _all(sampling.grid)}
        _refuse_names(points, found.keys() | (samplings.keys() - {name}), f"sampling.{name}", "sampling")
        found |= points
    return found


def _sampling(name: str, sampling: "Sampling", chosen: Chosen, control: "Sampling | None") -> "Sampling":
    if control and (strange := control.grid.keys() - chosen.keys()):
        raise BadConfig(
            f"sampling.{name}: its control {sampling.control} is a grid over {min(strange)}, which {name} is not; name "
            "one of its points, or give both the same grid."
        )
    if not chosen:
        return sampling
    values = sampling.model_dump(mode="json", exclude_unset=True, exclude={"grid"})
    for short, value in chosen.items():
        _set(values, sampling.grid[short].key, value, f"sampling.{name}.grid.{short}")
    if control and control.grid:
        values["control"] = _leaf(sampling.control or "", {short: chosen[short] for short in control.grid})
    point = parse(type(sampling), values, f"sampling.{name}")
    point._family = name
    return point


def _set(values: Any, key: str, value: Any, where: str) -> None:
    """Put a value at a dotted key, whose numbers count in lists."""
    *above, last = [int(step) if step.isdigit() else step for step in key.split(".")]
    try:
        for step in above:
            values = values[step]
        values[last] = value
    except (KeyError, IndexError, TypeError):
        raise BadConfig(f"{where}: the sampling has no '{key}' to set.") from None


def _all(axes: "Mapping[str, Axis]") -> Iterator[Chosen]:
    """Every combination of the values; a single empty one where there are no axes."""
    yield from (dict(zip(axes, values, strict=True)) for values in product(*(axis.values for axis in axes.values())))


def _leaf(name: str, chosen: Chosen) -> str:
    return name + "".join(f"-{short}{shown(value)}" for short, value in chosen.items())


def _refuse_names(points: Collection[str], others: Collection[str], where: str, kind: str) -> None:
    if clash := [point for point in points if point in others]:
        raise BadConfig(f"{where}: '{min(clash)}' is the name of another {kind}; rename one of them.")
    if long := next((p for p in points if len(p) > 64), None):
        raise BadConfig(f"{where}: '{long}' is longer than 64 characters; shorten the names of {kind} and grid.")


def shown(value: Any) -> str:
    """A value as part of a name: 5, 0.003, 1e-05, laplace, true."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}".replace("+", "") if isinstance(value, int | float) else str(value)
