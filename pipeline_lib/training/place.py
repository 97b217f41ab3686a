"""Where the store keeps a training; without torch, since those who look on from outside ask too."""

from collections.abc import Mapping
from typing import Any

from pipeline_lib.records.store import Entry, Manifest, entry

VERSION = 3  # bump when the code changes what a training ends with


def place(config: Mapping[str, Any], data: Manifest, init: str | None = None) -> Entry:
    """The store entry of a training on `data`; `init` is the hash of the weights that it starts from."""
    inputs = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    if init:
        inputs["init"] = init
    return entry("train", VERSION, config, inputs)
