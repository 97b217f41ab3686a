"""A variant with a grid becomes one variant for every combination of its values."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from pipeline_lib.config.load import merge
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Method, Variant


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
        points = dict(_points(variant_name, variant)) if variant.grid else {variant_name: variant}
        if clash := (points.keys() & found.keys()) or (points.keys() & (method.variants.keys() - {variant_name})):
            raise BadConfig(f"{where}: '{min(clash)}' is the name of another variant; rename one of them.")
        if long := next((p for p in points if len(p) > 64), None):
            raise BadConfig(f"{where}: '{long}' is longer than 64 characters; shorten the names of variant and grid.")
        found |= points
    return found


def _points(name: str, variant: "Variant") -> "Iterator[tuple[str, Variant]]":
    axes = variant.grid
    for values in product(*(axis.values for axis in axes.values())):
        run, leaf = variant.run, name
        for (short, axis), value in zip(axes.items(), values, strict=True):
            run, leaf = merge(run, _nested(axis.key.split("."), value)), f"{leaf}-{short}{shown(value)}"
        point = variant.model_copy(update={"grid": {}, "run": run})
        point._family = name
        yield leaf, point


def _nested(path: list[str], value: Any) -> Mapping[str, Any]:
    return {path[0]: _nested(path[1:], value)} if path else value


def shown(value: Any) -> str:
    """A value as part of a name: 5, 0.003, 1e-05, laplace, true."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}".replace("+", "") if isinstance(value, int | float) else str(value)
