"""What a record was made from and by: written into its metadata, without times or hosts, so that equal is equal."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pipeline_lib import __version__
from pipeline_lib.records.store import Manifest


def of(stage: str, code: int, config: Mapping[str, Any], inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Stage, hand-bumped version of its code, configuration, contents of its inputs, versions of the libraries."""
    return {
        "stage": stage,
        "version": code,
        "config": dict(config),
        "inputs": {name: {"fingerprint": m.fingerprint, "content": m.content} for name, m in inputs.items()},
        "versions": {"pipeline_lib": __version__, **{name: version(name) for name in ("torch", "numpy")}},
    }
