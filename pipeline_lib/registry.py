"""Finds the parts that are one file each (recipes, objectives, samplers, ...) by looking into their folder.

A part is a module with a pydantic class `Options` and an entry point that its folder's `__init__` describes. Parts
are imported when the Snakefile is parsed, to validate their options, so they import torch inside functions only.
"""

import difflib
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from pipeline_lib.exits import BadConfig
from pipeline_lib.records.files import sha256

ENTRY_POINTS = {
    "data/recipes": "prepare",
    "networks/architectures": "build",
    "networks/autoencoders": "build",
    "objectives": "build",
    "samplers": "sample",
    "samplers/corrections": "build",
    "tuning": "find",
    "errors/anatomy": "build",
}


def nearest(name: str, valid: Iterable[str]) -> str:
    """The tail of an error message: the closest valid name, or all of them where none is close."""
    valid = sorted(valid)
    if not valid:
        return "there are none."
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(valid)}."


@functools.cache
def names(kind: str) -> list[str]:
    """Names of all parts in the folder `pipeline_lib/<kind>`, hyphenated, without importing them."""
    folder = Path(__file__).parent / kind
    found = [m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_") and not m.ispkg]
    return sorted(n.replace("_", "-") for n in found)


def find(kind: str, name: str) -> ModuleType:
    """The module of the part `name` of `kind`; a name that ends in .py is a user's own file.

    Raises BadConfig for an unknown name, and for a file that is missing or is no such part.
    """
    if name.endswith(".py"):
        module = _from_file(Path(name))
        for wanted in ("Options", ENTRY_POINTS[kind]):
            if not hasattr(module, wanted):
                raise BadConfig(f"the file {name} defines no '{wanted}', which every part in {kind} has.")
        return module
    if name not in names(kind):
        raise BadConfig(f"there is no '{name}' in {kind}; {nearest(name, names(kind))}")
    return importlib.import_module(f"pipeline_lib.{kind.replace('/', '.')}.{name.replace('-', '_')}")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadConfig(f"the file {path} named in the configuration does not exist.")
    module_name = f"pipeline_user_{path.stem}_{sha256(path)[:12]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadConfig(f"the file {path} cannot be imported ({type(error).__name__}: {error}).") from error
    sys.modules[module_name] = module
    return module
