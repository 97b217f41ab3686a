"""Which training a configuration asks for: its place in the store, known without torch."""

from collections.abc import Mapping
from typing import Any

from pipeline_lib.networks import WEIGHTS
from pipeline_lib.records.store import Entry, Manifest, entry

VERSION = 4  # bump when the code changes what a training ends with


def store_of(config: Mapping[str, Any], data: Manifest, init: Manifest | None = None) -> Entry:
    """The entry of a training on `data`, which holds images or latents, that starts from `init` or from nothing."""
    inputs = {name: sha for name, sha in data.files.items() if name.startswith("train-")}
    if init:
        inputs["init"] = init.files[WEIGHTS]
    return entry("train", VERSION, config, inputs)
