"""The classifier stage: a small network whose features serve where Inception's mean nothing.

It learns the labels of the training images, or, where there are none, by how many quarter turns an image was rotated
(Gidaris et al., 2018). The task is part of the extractor's name: classifier-<recipe> or rotation-<recipe>.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.config.models import Classifier
from pipeline_lib.data.prepared import Prepared, to_float
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadData
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import atomic
from pipeline_lib.records.progress import Progress
from pipeline_lib.records.store import Entry, Manifest, entry

VERSION = 1
WEIGHTS = "classifier.safetensors"
TURNS = 4
log = logging.getLogger(__name__)


class SmallCNN(nn.Module):
    """Images (B,C,H,W) in [-1,1], from 8x8 up -> logits (B, classes), by way of features (B, D).

    Strided convolutions bring the longer side to at most 4 pixels. Batch normalisation, since in evaluation it is a
    fixed affine map: normalising each image by itself would hide errors of contrast from the features.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int, features: int, classes: int) -> None:
        super().__init__()
        self.about = {"shape": list(shape), "channels": channels, "features": features, "classes": classes}
        inside, height, width = shape
        layers, out = [*_convolution(inside, channels, 1)], channels
        while max(height, width) > 4:
            inside, out = out, min(2 * out, 4 * channels)
            layers += _convolution(inside, out, 2)
            height, width = -(-height // 2), -(-width // 2)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.penultimate = nn.Linear(out * height * width, features)
        self.last = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, D): the penultimate layer before its nonlinearity, where features are closest to Gaussian."""
        return self.penultimate(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.features(x)))


def _convolution(inside: int, out: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU()


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
    """Train the classifier of a dataset, unless the store has it, and write its manifest."""
    store = entry("classifier", VERSION, config, {"data": data.content})
    store.obtain(lambda: _make(store, Classifier.model_validate(config), data)).publish(output)


def _make(store: Entry, options: Classifier, data: Manifest) -> Manifest:
    watch, images = Stopwatch("classifier"), Prepared(data)
    task = "classifier" if labelled(images) else "rotation"
    with _one_thread():
        network = train(options, images)
        accuracy = accuracy_of(network, images.holdout()) if data.facts["holdout"] else None
    log.info("%s: accuracy on held-out images %s", task, "not measured" if accuracy is None else f"{accuracy:.4f}")
    save(store.folder / WEIGHTS, network)
    facts = {"name": f"{task}-{Path(data.facts['recipe']).stem}", "accuracy": accuracy, **network.about}
    watch.save(store.folder, images=float(options.steps * options.batch_size))
    return store.finish([WEIGHTS], facts)


def train(options: Classifier, data: Prepared) -> SmallCNN:
    """Adam with a rate that falls linearly to zero; on the CPU, so that a GPU machine finds the same weights."""
    supervised = labelled(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = SmallCNN(data.shape, options.channels, options.features, len(data.classes) if supervised else TURNS)
    adam = torch.optim.Adam(network.parameters(), options.lr)
    noise, places = Noise(options.seed), torch.arange(options.batch_size)
    progress = Progress(log, "feature extractor", "steps", options.steps)
    for step in range(options.steps):
        adam.param_groups[0]["lr"] = options.lr * (1 - step / options.steps)
        words = noise.words(Stream.CLASSIFIER, places, step, 2)
        images, targets = batch_of(data, words[:, 0] % len(data), None if supervised else words[:, 1] % TURNS)
        loss = F.cross_entropy(network(images), targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
        progress.update(step + 1)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy_of(network: SmallCNN, data: Prepared, batch: int = 256) -> float:
    """Share of right answers; without labels, image number i is turned i times."""
    supervised, right = labelled(data), 0
    for index in torch.arange(len(data)).split(batch):
        images, targets = batch_of(data, index, None if supervised else index % TURNS)
        right += int((network(images).argmax(1) == targets).sum())
    return right / len(data)


def save(path: Path, network: SmallCNN) -> None:
    """Write the weights with all that is needed to use them."""
    with atomic(path) as temporary:
        about = {"about": json.dumps(network.about, sort_keys=True)}
        temporary.write_bytes(serialise(network.state_dict(), about))  # its own writer hides that a disk is full


def load(path: Path, device: torch.device | str = "cpu") -> SmallCNN:
    """The network of a weights file, in evaluation mode without gradients; raises BadData where it cannot be read."""
    try:
        with safe_open(path, "pt") as stream:
            about = json.loads(stream.metadata()["about"])
            weights = {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise BadData(f"the weights {path} cannot be read ({error}).") from None
    network = SmallCNN(**about)
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
