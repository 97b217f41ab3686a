"""Reading configuration files: YAML without duplicate keys, `extends`, deep merging."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.exits import BadConfig


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C six times as fast
    """Refuses a key that stands twice in one mapping, and reads 1e-4 as a number (YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, which the keys beside it may override
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise BadConfig(
                    f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: '{key}' stands twice."
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _first in "-+0123456789.":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(
        0, ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"))
    )


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings merge key by key, everything else is replaced, and null takes a mapping away."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = merge(old, value)
        elif value is None and isinstance(old, Mapping):
            del merged[key]
        else:
            merged[key] = value
    return merged


def read(path: Path) -> dict[str, Any]:
    """The content of a configuration file, merged over the files that it extends (paths relative to it)."""
    return _read(path.resolve(), ())


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path in below:
        raise BadConfig(f"{path.name} extends itself.")
    if not path.is_file():
        raise BadConfig(f"the configuration file {path} does not exist.")
    try:
        with path.open() as stream:
            content = yaml.load(stream, _Loader)
    except yaml.YAMLError as error:
        raise BadConfig(f"{path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise BadConfig(f"{path.name} must hold a mapping of keys.")
    parents = content.pop("extends", [])
    merged: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = merge(merged, _read((path.parent / parent).resolve(), (*below, path)))
    return merge(merged, content)
