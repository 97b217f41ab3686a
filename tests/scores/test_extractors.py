"""Feature extractors: precision, damage, and Inception with generated weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores import _torchvision, extractors, frechet
from pipeline_lib.scores.extractors import Extractor, batches
from tests.scores.conftest import digits

CPU = torch.device("cpu")


class Images(torch.utils.data.Dataset):
    """A tensor as torch-fidelity wants it."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def extractor(network: Callable[[torch.Tensor], torch.Tensor]) -> Extractor:
    return Extractor("tiny", "0" * 64, 2, "none", "test", network, CPU)


def test_batches_hold_every_image_once() -> None:
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    parts = list(batches(images, 3))
    assert [len(p) for p in parts] == [3, 3, 1]
    assert torch.cat(parts).flatten().tolist() == list(range(7))


def test_features_of_the_classifier_do_not_depend_on_the_batch(trained: Manifest) -> None:
    found = extractors.from_classifier(trained, CPU)
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8)
    whole, split = next(found.features([images])), torch.cat(list(found.features(images.split(3))))
    assert whole.shape == (10, found.dim)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(split, whole)


def test_features_that_are_not_finite_are_bad_data() -> None:
    with pytest.raises(BadData, match="extractor tiny gives features that are not finite"):
        extractor(lambda x: x.float().flatten(1)[:, :2] / 0).moments([torch.zeros(3, 1, 2, 2, dtype=torch.uint8)])


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        seen = []
        network = lambda x: seen.append(matmul.fp32_precision) or torch.zeros(len(x), 2)  # noqa: E731
        list(extractor(network).features([torch.zeros(1, 1, 2, 2, dtype=torch.uint8)]))
        assert seen == ["ieee"]
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_the_weights_are_the_file_that_torch_fidelity_names() -> None:
    _torchvision.ensure()
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert URL_INCEPTION_V3.endswith(f"/v0.2.0/{extractors.INCEPTION_WEIGHTS}")
    assert extractors.INCEPTION_WEIGHTS.endswith(f"-{extractors.INCEPTION_SHA}.pth")


def test_without_weights_there_is_no_inception() -> None:
    assert extractors.inception_weights(None) is None


def test_a_configured_file_must_exist() -> None:
    with pytest.raises(BadConfig, match=r"scores\.inception_weights: there is no file nowhere\.pth"):
        extractors.inception_weights("nowhere.pth")


def test_other_weights_are_refused_before_they_are_unpickled(tmp_path: Path) -> None:
    cached = tmp_path / "torch" / "hub" / "checkpoints" / extractors.INCEPTION_WEIGHTS
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not weights")
    with pytest.raises(BadData, match="sha256 must start with 6726825d"):
        extractors.inception_weights(None)


def test_inception_on_grey_images(random_inception: Path) -> None:
    weights = extractors.inception_weights(str(random_inception))
    assert weights is not None
    found = extractors.inception(weights, 1, CPU)
    grey = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = next(found.features([grey]))
    assert features.shape == (2, found.dim)
    assert not torch.equal(features[0], features[1])
    assert torch.equal(features, next(found.features([grey.repeat(1, 3, 1, 1)])))
    assert (found.metric, found.sha) == ("FID", sha256(random_inception))
    assert "3 channels" in found.note


def test_calculate_metrics_end_to_end(trained: Manifest) -> None:
    _torchvision.ensure()
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    ours = extractors.from_classifier(trained, CPU)

    class Wrapped(FeatureExtractorBase):
        """The classifier as torch-fidelity wants it."""

        def __init__(self, name: str, layers: list[str], **kwargs: object) -> None:
            super().__init__(name, layers)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (next(ours.features([images])),)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

    torch_fidelity.register_feature_extractor("wrapped-classifier", Wrapped)
    images, _ = digits()
    sets = [torch.from_numpy(images[:300]), torch.from_numpy(images[300:700] // 2)]
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(sets[0]),
        input2=Images(sets[1]),
        fid=True,
        feature_extractor="wrapped-classifier",
        feature_layer_fid="features",
        cuda=False,
        verbose=False,
        save_cpu_ram=True,
    )["frechet_inception_distance"]
    value = frechet.distance(*(ours.moments([s]) for s in sets))
    assert value == pytest.approx(theirs, rel=1e-6)
