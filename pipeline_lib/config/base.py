"""The base of all configuration models, and the plain sentences that their errors become."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from pipeline_lib import registry
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.files import sha256


class Model(BaseModel):
    """A frozen model that refuses unknown keys, numbers that are not finite, and true and false for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_where_they_are_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1, and pydantic with it."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if _holds_truth_value(value) and not _takes_truth_values(annotation):
            raise ValueError("true and false are no values of this key")
        return value


M = TypeVar("M", bound=Model)


def parse(model: type[M], values: Mapping[str, Any], where: str = "") -> M:
    """Validate `values`; the first error becomes one BadConfig sentence with the key and the nearest valid one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadConfig(_sentence(error, model, where)) from None


def part(kind: str, values: Mapping[str, Any] | str, where: str) -> dict[str, Any]:
    """Validate `{name: ..., **options}` against the `Options` of that part; returns it with all defaults filled in.

    A user's own file adds `code`, its sha256, so that editing it makes another identity. Raises BadConfig where the
    file is no longer what it was when `code` was taken.
    """
    if not isinstance(values, str | Mapping):
        raise BadConfig(f"{where}: give a name, or a mapping with a name and options (it is {values!r}).")
    values = {"name": values} if isinstance(values, str) else dict(values)
    name, code = values.pop("name", None), values.pop("code", None)
    if not isinstance(name, str):
        raise BadConfig(f"{where}: 'name' is missing; {registry.nearest('', registry.names(kind))}")
    options = parse(registry.find(kind, name).Options, values, where)
    own = {"code": sha256(Path(name))} if name.endswith(".py") else {}
    if code is not None and own.get("code") != code:
        raise BadConfig(f"{name} was edited after this job was planned; run the workflow again.")
    return {"name": name, **own, **options.model_dump(mode="json")}


def load_part(kind: str, values: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The module of a part that `part` has validated, and its options."""
    module = registry.find(kind, values["name"])
    return module, module.Options(**{k: v for k, v in values.items() if k not in ("name", "code")})


def unmeasured(kind: str, values: Mapping[str, Any]) -> list[str]:
    """Those options of a validated part that the rule `moments` must fill in; none for most."""
    module, options = load_part(kind, values)
    return module.unknown(options) if hasattr(module, "unknown") else []


def build_part(kind: str, values: Mapping[str, Any], *about: Any) -> Any:
    """What the `build` of a part that `part` has validated makes of its options."""
    module, options = load_part(kind, values)
    return module.build(options, *about)


def _holds_truth_value(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth_value, value)))


def _takes_truth_values(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(map(_takes_truth_values, get_args(annotation)))


def _sentence(error: ValidationError, model: type[Model], where: str) -> str:
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    key = ".".join([where, *path] if where else path)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {registry.nearest(path[-1], _fields(model, path[:-1]))}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing."
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    message = message[:1].lower() + message[1:]
    message = f"{key}: {message}" if key else message
    shown = "" if isinstance(first["input"], Mapping) or not key else f" (it is {first['input']!r})"
    return message if message.endswith("?") else f"{message.rstrip('.')}{shown}."


def _fields(model: type[Model], path: list[str]) -> list[str]:
    """Valid keys of the model at `path` below `model`; mapping keys are passed over."""
    for step in path:
        field = model.model_fields.get(step)
        nested = _nested(field.annotation) if field else None
        model = nested or model
    return list(model.model_fields)


def _nested(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _nested(argument):
            return found
    return None
