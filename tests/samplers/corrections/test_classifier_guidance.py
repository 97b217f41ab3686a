"""Classifier guidance from a trained run: nothing at scale 0, recognised labels at larger ones, a classifier needed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, Prediction
from pipeline_lib.exits import BadConfig
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.samplers.corrections.classifier_guidance import Options, build
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run

ENCODER = {"name": "encoder", "channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "attention_resolutions": [4]}
TRAINING = {"steps": 100, "ema_decay": 0.0}
COUNT = 100


@pytest.fixture
def guide(tiny_data: Manifest) -> Manifest:
    """A noisy classifier of left and top that has learned to tell them apart."""
    run = tiny_run(objective={"name": "noisy-classifier"}, training=TRAINING)
    run["network"] = {**tiny_run()["network"], **ENCODER}
    train.run(run, RUNTIME, Path("guide.json"), tiny_data)
    return Manifest.load(Path("guide.json"))


@pytest.fixture
def trained(tiny_data: Manifest) -> Manifest:
    """A network without labels."""
    train.run(tiny_run(training={"steps": 100}), RUNTIME, Path("train.json"), tiny_data)
    return Manifest.load(Path("train.json"))


def sample(trained: Manifest, guide: Manifest | None, *scales: float) -> np.ndarray:
    corrections = [{"name": "classifier-guidance", "scale": w, "classifier": "guide/paper"} for w in scales]
    config = Sampling(sampler={"name": "ancestral"}, nfe=[8], images=COUNT, corrections=corrections)
    _stage.run(config.model_dump(mode="json"), {"batch": 50}, Path("sample.json"), trained, guide=guide)
    return np.load(Manifest.load(Path("sample.json")).file("nfe0008/images.npy"))


def recognised(images: np.ndarray) -> float:
    """Share of images that are brighter at the top right or the bottom left as their label (1: top, 0: left) says."""
    labels = _stage.labels_of(torch.arange(COUNT), 2, 0).numpy()
    top, left = images[:, 0, :4, 4:].mean((1, 2)), images[:, 0, 4:, :4].mean((1, 2))
    return float(((top > left) == labels).mean())


def test_scale_zero_changes_no_bit_and_larger_ones_bring_the_label(trained: Manifest, guide: Manifest) -> None:
    plain, nothing, much = sample(trained, None), sample(trained, guide, 0.0), sample(trained, guide, 5.0)
    assert np.array_equal(plain, nothing)
    assert recognised(plain) < 0.6
    assert recognised(much) > 0.8


def test_a_classifier_is_a_training_that_draws_no_images(guide: Manifest) -> None:
    history = tables.read(guide.file("history.parquet"), tables.HISTORY)
    wrong = history.loc[history["key"].eq("loss/wrong"), "value"]
    assert wrong.iloc[-1] < 0.8 * wrong.iloc[0]
    assert set(guide.files) == {"weights.safetensors", "history.parquet"}


def test_the_classifier_is_part_of_the_identity_of_the_samples(trained: Manifest, guide: Manifest) -> None:
    sample(trained, guide, 1.0)
    identity = json.loads((Path(Manifest.load(Path("sample.json")).folder) / "identity.json").read_text())
    weights = "weights.safetensors"
    assert identity["inputs"] == {"weights": trained.files[weights], "guide": guide.files[weights]}


def test_a_classifier_that_is_not_given_is_asked_for(trained: Manifest) -> None:
    with pytest.raises(BadConfig, match=r"guided by guide/paper; give the manifest of its training with --guide"):
        sample(trained, None, 1.0)


def test_eps_moves_against_the_gradient_times_s_and_scale() -> None:
    """Logits (0, k x): the gradient of ln p(1 | x) is k p(0 | x), for every pixel's sum."""

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            total = x.flatten(1).sum(1)
            return torch.stack((torch.zeros_like(total), 3 * total), 1)

    diffusion = Diffusion(timesteps=10)
    path = paths.build(diffusion)
    step = path.grid(10).step(4)
    x, eps = torch.randn(2, 6, 1, 2, 2).unbind(0)
    given = Prediction(x, torch.tensor(step.a), torch.tensor(step.s), eps, "eps")
    options = Options(scale=0.5, classifier="guide/paper")
    labels = torch.ones(6, dtype=torch.int64)
    with torch.no_grad():
        found = build(options, path, 10, Denoiser(Linear(), path, diffusion), labels, 4)(given, step)
    slope = 3 * torch.sigmoid(-3 * x.flatten(1).sum(1))[:, None, None, None]
    assert torch.allclose(found.eps, eps - 0.5 * step.s * slope, atol=1e-6)
