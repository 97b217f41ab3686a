"""The latents stage: the training images as the autoencoder encodes them, trained on in place of the pixels."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib import device
from pipeline_lib.data.arrays import appending
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.networks import latent_space
from pipeline_lib.networks.latent_space import LatentSpace
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.training.autoencoder import blocks

VERSION = 1
IMAGES, LABELS = "train-images.npy", "train-labels.npy"


def run(
    config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, data: Manifest, autoencoder: Manifest
) -> None:
    """Encode the training images, unless the store has them, and write a manifest that stands for that of the data.

    In the store: train-images.npy, float32 (N,L,H/f,W/f), of unit standard deviation over all numbers; the labels.
    """
    inputs = {"data": data.content, "autoencoder": autoencoder.content}
    store = entry("latents", VERSION, config, inputs)
    store.obtain(lambda: _make(store, Prepared(data), latent_space.load(autoencoder, device.pick()))).publish(output)


def _make(store: Entry, data: Prepared, space: LatentSpace) -> Manifest:
    watch, files = Stopwatch("latents"), [IMAGES]
    store.folder.mkdir(parents=True, exist_ok=True)
    with appending(store.folder / IMAGES, space.shape, np.float32) as append:
        for images in blocks(data):
            append(space.encode(images).cpu().numpy())
    if data.labels is not None:
        shutil.copyfile(data.manifest.file(LABELS), store.folder / LABELS)
        files.append(LABELS)
    watch.save(store.folder, images=float(len(data)))
    facts = {"count": len(data), "holdout": 0, "shape": list(space.shape), "classes": data.classes}
    return store.finish(files, facts)
