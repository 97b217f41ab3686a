"""Feature extractors: from uint8 images to the vectors whose distribution is compared.

`FID` means one thing: torch-fidelity's inception-v3-compat with its published weights. Every other extractor gives an
`FD (<extractor>)`. Nothing is downloaded here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import __version__
from pipeline_lib.data.prepared import to_float
from pipeline_lib.device import full_float32
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import _torchvision, classifier
from pipeline_lib.scores.frechet import Moments

INCEPTION = "inception-v3-compat"
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # as the torch-fidelity release v0.2.0 names it
INCEPTION_SHA = "6726825d"  # start of the sha256, part of the name as torch.hub wants it
GREY = "grey images repeated to 3 channels"
INCEPTION_MISSING = (
    f"the Inception weights are not on this machine: fetch {INCEPTION_WEIGHTS} from the torch-fidelity release v0.2.0 "
    "and name the file in scores.inception_weights."
)


@dataclass(frozen=True)
class Extractor:
    """A network from uint8 images (B,C,H,W) to features float32 (B, dim), on `device`."""

    name: str
    sha: str
    dim: int
    resize: str
    library: str
    network: Callable[[Tensor], Tensor]
    device: torch.device
    batch: int = 256
    note: str = ""
    logits: Callable[[Tensor], Tensor] | None = None  # from features, where the classes mean something

    @property
    def metric(self) -> str:
        """Name of the Frechet distance."""
        return self.called("FID", "FD")

    def called(self, usual: str, otherwise: str) -> str:
        """Name of a score: the usual one is kept for Inception with its published weights."""
        return usual if self.name == INCEPTION else f"{otherwise} ({self.name})"

    def features(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Features float32 (B, dim) of each batch of uint8 images, on `device`.

        Raises BadData behind the last one where any was not finite: asking at each would make a GPU wait.
        """
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for images in batches:
            with torch.no_grad(), full_float32(self.device.type):
                features = self.network(images.to(self.device, non_blocking=True))
            finite &= features.isfinite().all()
            yield features
        if not finite:
            raise BadData(f"the extractor {self.name} gives features that are not finite: its weights are damaged.")

    def table(self, batches: Iterable[Tensor], count: int) -> Tensor:
        """Features float32 (count, dim) of all batches, on `device`: extracted once, shared by all scores."""
        features, start = torch.empty(count, self.dim, device=self.device), 0
        for part in self.features(batches):
            features[start : start + len(part)] = part
            start += len(part)
        assert start == count
        return features

    def moments(self, batches: Iterable[Tensor]) -> Moments:
        """Moments of the features of all batches."""
        moments = Moments(self.dim, self.device)
        for features in self.features(batches):
            moments.add(features)
        return moments


def batches(images: np.ndarray, size: int) -> Iterator[Tensor]:
    """uint8 (N,C,H,W), memory-mapped or not -> tensors of at most `size` images."""
    for start in range(0, len(images), size):
        yield torch.from_numpy(np.array(images[start : start + size]))


PRECISION = "float32, TF32 off"


def from_classifier(manifest: Manifest, device: torch.device) -> Extractor:
    """The extractor that the classifier stage trained."""
    network = classifier.load(manifest.file(classifier.WEIGHTS), device)
    return Extractor(
        name=manifest.facts["name"],
        sha=manifest.files[classifier.WEIGHTS],
        dim=manifest.facts["features"],
        resize="none",
        library=_library(),
        network=lambda images: network.features(to_float(images)),
        device=device,
        logits=network.logits if manifest.facts["task"] == "classifier" else None,
    )


def inception_weights(configured: str | None) -> Path | None:
    """The configured file, else the one in torch.hub's cache, else None.

    Raises BadConfig where the configured file does not exist, BadData where the weights are not the published ones.
    """
    path = Path(configured) if configured else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS
    if not path.is_file():
        if configured:
            raise BadConfig(
                f"scores.inception_weights: there is no file {path}; null takes the one in torch.hub's cache."
            )
        return None
    if not sha256(path).startswith(INCEPTION_SHA):
        raise BadData(
            f"{path} does not hold torch-fidelity's published weights (its sha256 must start with {INCEPTION_SHA}); "
            f"replace it by {INCEPTION_WEIGHTS}."
        )
    return path


def inception(weights: Path, channels: int, device: torch.device) -> Extractor:
    """torch-fidelity's Inception at its 2048-wide pooling layer, for grey or RGB images.

    `weights` is unpickled, so it must have come through `inception_weights`.
    """
    _torchvision.ensure()
    from torch_fidelity.utils import create_feature_extractor

    network = create_feature_extractor(
        INCEPTION, ["2048"], cuda=False, verbose=False, feature_extractor_weights_path=str(weights)
    ).to(device)
    return Extractor(
        name=INCEPTION,
        sha=sha256(weights),
        dim=2048,
        resize="TF1 bilinear to 299x299",
        library=f"torch-fidelity {version('torch-fidelity')} (features), {_library()}",
        network=lambda images: network(images.expand(-1, 3, -1, -1))[0],
        device=device,
        batch=64,
        note=GREY if channels == 1 else "",
        logits=lambda features: features @ network.fc.weight.T,  # 'logits_unbiased', as published scores have it
    )


def _library() -> str:
    return f"pipeline_lib {__version__}"
