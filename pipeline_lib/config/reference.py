"""The page of all keys of a configuration, made from the models and from the options of every part.

`python -m pipeline_lib reference-page > docs/configuration.md` writes it.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline_lib import registry
from pipeline_lib.config import models
from pipeline_lib.config.base import Model

HEAD = """\
# Configuration

All keys of a configuration file. This page is made by `python -m pipeline_lib reference-page`; do not edit it.

A file may say `extends: FILE` (or a list of files, paths relative to it): mappings are merged key by key, everything \
else is replaced, and `null` takes a mapping away. Unknown keys and keys that stand twice are refused. \
`base` and every `run` hold any part of the sections of a [run](#run). A run starts from the defaults below; over \
them are laid, each over the one before, the preset of its variant, `base`, and the `run` of its dataset, method and \
variant.

Recipe, network, objective, sampler, correction, tuning and measure are given by name, or as a mapping with `name` and \
options; each may be a path to a `.py` file of your own.
"""
PARTS = {
    "data/recipes": "Recipe",
    "networks/architectures": "Network",
    "networks/autoencoders": "Autoencoder",
    "objectives": "Objective",
    "samplers": "Sampler",
    "samplers/corrections": "Correction",
    "tuning": "Tuning",
    "errors/anatomy": "Measure",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "multiple of"}
WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def page() -> str:
    """The page as Markdown."""
    sections = [_section(title, about, model) for title, about, model in documented()]
    return "\n".join([HEAD, *sections])


def documented() -> Iterator[tuple[str, str, type[Model]]]:
    """Title, description and model of every section, in the order of the page."""
    places: dict[str, list[str]] = {}
    _walk(models.Run, "base", places)
    _walk(models.Experiment, "", places)
    yield "Experiment", "The top level of a file.", models.Experiment
    for name, where in places.items():
        if name != "Experiment":
            model = getattr(models, name)
            yield name, f"{inspect.getdoc(model)} Keys of {', '.join(f'`{p}`' for p in where)}.", model
    for kind, title in PARTS.items():
        for name in registry.names(kind):
            module = registry.find(kind, name)
            presets = ", ".join(f"`{p}`" for p in getattr(module, "PRESETS", {}))
            about = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
            yield f"{title} {name}", f"{about}{f' Presets: {presets}.' if presets else ''}", module.Options


def _walk(model: type[Model], path: str, places: dict[str, list[str]]) -> None:
    """Collect where each model stands, in the order in which they are met."""
    places.setdefault(model.__name__, []).append(path)
    for key, schema in model.model_json_schema()["properties"].items():
        below = f"{path}.{key}" if path else key
        for name, tail in _references(schema):
            _walk(getattr(models, name), below + tail, places)


def _references(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(model, what stands between the key and it) of all models that a schema names."""
    if "$ref" in schema:
        yield schema["$ref"].split("/")[-1], ""
    for inner in schema.get("anyOf", []):
        yield from _references(inner)
    for step, inner in ((".<name>", _named(schema)), ("[]", schema.get("items", {}))):
        if inner:
            yield from ((name, step + tail) for name, tail in _references(inner))


def _named(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the values of a mapping of names; empty where it is none."""
    return next(iter(schema.get("patternProperties", {}).values()), {})


def _section(title: str, about: str, model: type[Model]) -> str:
    head = f"## {title}\n\n{about}\n"
    if not model.model_fields:
        return f"{head}\nIt has no options.\n"
    schemas = model.model_json_schema()["properties"]
    rows = [_row(key, schemas[key], model) for key in model.model_fields]
    return "\n".join([head, "| key | type | default | description |", "|---|---|---|---|", *rows, ""])


def _row(key: str, schema: Mapping[str, Any], model: type[Model]) -> str:
    field = model.model_fields[key]
    default = "required" if field.is_required() else f"`{_default(field.get_default(call_default_factory=True))}`"
    cells = [f"`{key}`", type_of(schema), default, (field.description or "").replace("<", "&lt;")]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(value: Any) -> str:
    """As it would stand in a file; of sections what differs from the section's own defaults."""
    value = _plain(value)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Model):
        return value.model_dump(mode="json", exclude_defaults=True)
    return list(value) if isinstance(value, tuple) else value


def type_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: 'integer ≥ 1', 'list of `u` or `v`', 'mapping of names to [Dataset](#dataset)'."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_of(inner) for inner in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return _list(schema)
    if schema.get("type") == "object":
        return f"mapping of names to {type_of(_named(schema))}" if _named(schema) else "mapping"
    if schema.get("pattern") == models.NAME:
        return "name"
    bounds = [f"{sign} {schema[key]:,}" for key, sign in BOUNDS.items() if key in schema]
    return " ".join([WORDS[schema["type"]], ", ".join(bounds)]).strip() if "type" in schema else "anything"


def _list(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(type_of(inner) for inner in schema['prefixItems'])}]"
    inner = schema.get("items", {})
    return f"list of {type_of(inner)}" if inner else "list"
