"""The classifier stage: a small network whose features serve where Inception's mean nothing.

It learns the labels of the training images, or, where there are none, by how many quarter turns an image was rotated
(Gidaris et al., 2018). The task is part of the extractor's name, with the dataset's key in the experiment:
classifier-<dataset> or rotation-<dataset>.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn import functional as F

from pipeline_lib import device
from pipeline_lib.config.models import Classifier
from pipeline_lib.data.prepared import Prepared, to_float
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadData
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import atomic
from pipeline_lib.records.progress import Progress
from pipeline_lib.records.store import Entry, Manifest, entry
from pipeline_lib.scores.classifier_networks import NETWORKS, FeatureNetwork, build

VERSION = 2
STEPS = {"small": 600, "resnet": 4000}  # where the configuration leaves it open
WEIGHTS = "classifier.safetensors"
TURNS = 4
log = logging.getLogger(__name__)


def labelled(data: Prepared) -> bool:
    """Whether there are classes to tell apart; raises BadData where images can neither be classified nor rotated."""
    _, height, width = data.shape
    found = data.labels is not None and len(data.classes) > 1
    if not found and height != width:
        raise BadData(
            f"the images in {data.manifest.folder} have no labels and are {height}x{width}: without labels the feature "
            "extractor learns to tell rotations, which needs square images; prepare them square."
        )
    return found


def batch_of(data: Prepared, index: Tensor, turns: Tensor | None) -> tuple[Tensor, Tensor]:
    """Images (B,C,H,W) in [-1,1] at `index` (B,) and targets (B,): labels, or quarter turns where these are given."""
    images = to_float(torch.from_numpy(data.images[index.numpy()]))
    if turns is None:
        assert data.labels is not None
        return images, torch.from_numpy(data.labels[index.numpy()])
    for k in (1, 2, 3):
        images[turns == k] = images[turns == k].rot90(k, (2, 3))
    return images, turns


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path, data: Manifest) -> None:
    """Train the classifier of a dataset, unless the store has it, and write its manifest.

    The dataset's key is no part of the identity: two experiments that call it differently share the training.
    """
    settings = {k: v for k, v in config.items() if k != "dataset"}
    store = entry("classifier", VERSION, settings, {"data": data.content})
    made = store.obtain(lambda: _make(store, Classifier.model_validate(settings), data))
    name = f"{made.facts['task']}-{config['dataset']}"
    replace(made, facts={**made.facts, "name": name}).publish(output)


def _make(store: Entry, options: Classifier, data: Manifest) -> Manifest:
    watch, images = Stopwatch("classifier"), Prepared(data)
    task = "classifier" if labelled(images) else "rotation"
    kind = options.chosen(images.shape)
    where = torch.device("cpu") if kind == "small" else device.pick()  # a small one is the same on every machine
    with _one_thread():
        network = train(options, images, where)
        accuracy = accuracy_of(network, images.holdout()) if data.facts["holdout"] else None
    log.info("%s: accuracy on held-out images %s", task, "not measured" if accuracy is None else f"{accuracy:.4f}")
    save(store.folder / WEIGHTS, network)
    watch.save(store.folder, images=float(steps(options, kind) * options.batch_size))
    return store.finish([WEIGHTS], {"task": task, "accuracy": accuracy, **network.about})


def steps(options: Classifier, kind: str) -> int:
    """Optimiser steps of a network."""
    return options.steps or STEPS[kind]


def train(options: Classifier, data: Prepared, where: torch.device | str = "cpu") -> FeatureNetwork:
    """Adam with a rate that falls linearly to zero."""
    supervised, kind = labelled(data), options.chosen(data.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        outputs = len(data.classes) if supervised else TURNS
        network = NETWORKS[kind](data.shape, options.channels, options.features, outputs).to(where)
    adam = torch.optim.Adam(network.parameters(), options.lr)
    noise, places, total = Noise(options.seed), torch.arange(options.batch_size), steps(options, kind)
    progress = Progress(log, "feature extractor", "steps", total)
    for step in range(total):
        adam.param_groups[0]["lr"] = options.lr * (1 - step / total)
        words = noise.words(Stream.CLASSIFIER, places, step, 2)
        images, targets = batch_of(data, words[:, 0] % len(data), None if supervised else words[:, 1] % TURNS)
        loss = F.cross_entropy(network(images.to(where)), targets.to(where))
        adam.zero_grad()
        loss.backward()
        adam.step()
        progress.update(step + 1)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy_of(network: FeatureNetwork, data: Prepared, batch: int = 256) -> float:
    """Share of right answers; without labels, image number i is turned i times."""
    supervised, right, where = labelled(data), 0, network.last.weight.device
    for index in torch.arange(len(data)).split(batch):
        images, targets = batch_of(data, index, None if supervised else index % TURNS)
        right += int((network(images.to(where)).argmax(1).cpu() == targets).sum())
    return right / len(data)


def save(path: Path, network: FeatureNetwork) -> None:
    """Write the weights with all that is needed to use them."""
    with atomic(path) as temporary:
        about = {"about": json.dumps(network.about, sort_keys=True)}
        temporary.write_bytes(serialise(network.state_dict(), about))  # its own writer hides that a disk is full


def load(path: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """The network of a weights file, in evaluation mode without gradients; raises BadData where it cannot be read."""
    try:
        with safe_open(path, "pt") as stream:
            about = json.loads(stream.metadata()["about"])
            weights = {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118
        network = build(about)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise BadData(f"the weights {path} cannot be read ({error}).") from None
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, so the weights would, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
