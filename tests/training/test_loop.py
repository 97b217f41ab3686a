"""The parts of a step, against their definitions."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline_lib.config.averages import decay_at
from pipeline_lib.config.models import Run, Training
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.networks import trained
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from pipeline_lib.training.batches import Batches
from pipeline_lib.training.ema import Ema
from pipeline_lib.training.loop import learning_rate
from tests.conftest import RUNTIME, tiny_run

CPU = torch.device("cpu")


def batches(data: Manifest, **config: object) -> Batches:
    return Batches(Prepared(data), Training(batch_size=16, **config), 0, CPU)


def test_an_epoch_shows_every_image_once(tiny_data: Manifest) -> None:
    source = batches(tiny_data)
    epochs = [torch.cat([source._chosen((3 * epoch + i) * 16, 16) for i in range(3)]) for epoch in range(3)]
    assert all(sorted(seen.tolist()) == list(range(48)) for seen in epochs)
    assert all(int((a == b).sum()) < 8 for a, b in pairwise(epochs))  # of orders without relation one is the same


def test_a_batch_over_the_end_of_an_epoch_is_whole(tiny_data: Manifest) -> None:
    source = batches(tiny_data)
    across = source._chosen(40, 16)
    assert torch.equal(across[:8], source._order(0)[40:])
    assert torch.equal(across[8:], source._order(1)[:8])


def test_images_come_with_their_labels_in_minus_one_to_one(tiny_data: Manifest) -> None:
    batch = batches(tiny_data).at(2)
    bright = torch.stack([batch.x0[:, 0, :, :4].mean((1, 2)), batch.x0[:, 0, :4].mean((1, 2))], dim=1)
    assert torch.equal(bright.argmax(1), batch.labels)
    assert batch.x0.min() >= -1
    assert batch.x0.max() <= 1


def test_flips_mirror_about_half_of_the_images(tiny_data: Manifest) -> None:
    plain, flipped = batches(tiny_data), batches(tiny_data, flip=True)
    turned = [
        [
            torch.equal(a, b.flip(-1)) and not torch.equal(a, b)
            for a, b in zip(plain.at(step).x0, flipped.at(step).x0, strict=True)
        ]
        for step in range(9)
    ]
    assert 48 <= sum(map(sum, turned)) <= 96  # 144 fair coins: 4 standard deviations
    assert len({tuple(step) for step in turned}) == 9  # new ones at every step


def test_warmup_is_linear_and_ends_at_the_rate() -> None:
    config = Training(lr=1.0, warmup_steps=4)
    assert [learning_rate(config, i) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(Training(lr=1.0, warmup_steps=0), 0) == 1.0


def test_decay_is_linear_from_the_end_of_the_warmup_to_zero() -> None:
    config = Training(lr=1.0, warmup_steps=2, steps=6, lr_decay="linear")
    assert [learning_rate(config, i) for i in range(7)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_ema_is_the_weighted_sum_of_its_definition() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    ema = Ema(network, Training(ema_decay=0.9, ema_every=2, ema_warmup=False))
    expected = 0.0
    for done in range(1, 9):
        torch.nn.init.constant_(network.weight, float(done))
        ema.update(done)
        expected = 0.9 * expected + 0.1 * done if done % 2 == 0 else expected
    assert float(ema.state["weight"]) == pytest.approx(expected)
    with ema.swapped_in():
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 8


def test_a_half_life_halves_the_share_of_the_past() -> None:
    """After that many images what was there before counts half, however often the average is updated."""
    for every in (1, 5):
        config = Training(ema_halflife_images=400, batch_size=8, ema_every=every, ema_warmup=False)
        assert float(np.prod([decay_at(config, n) for n in range(1, 400 // 8 // every + 1)])) == pytest.approx(0.5)


def test_a_half_life_warms_up_to_a_twentieth_of_the_images_seen() -> None:
    """The released code of EDM: nothing is kept at first; 5 % of the images before the batch, up to the half-life."""
    config = Training(ema_halflife_images=400, batch_size=8, ema_warmup=True)
    assert decay_at(config, 1) == 0
    assert decay_at(config, 11) == pytest.approx(0.5 ** (8 / (0.05 * 80)))
    assert decay_at(config, 1001) == pytest.approx(0.5 ** (8 / 400))
    assert decay_at(config, 5000) == decay_at(config, 1002)


def test_ema_warms_up_by_its_own_updates() -> None:
    """decay_n = min(decay, (1 + n) / (10 + n)) at the n-th update, whatever the number of steps between two."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    ema, expected = Ema(network, Training(ema_decay=0.25, ema_every=2, ema_warmup=True)), 0.0
    for done, decay in ((2, 2 / 11), (4, 0.25), (6, 0.25)):
        torch.nn.init.constant_(network.weight, float(done))
        ema.update(done)
        expected = decay * expected + (1 - decay) * done
        assert float(ema.state["weight"]) == pytest.approx(expected)


def test_weights_describe_themselves(tiny_data: Manifest, tmp_path: Path) -> None:
    train.run(tiny_run(), RUNTIME, tmp_path / "manifest.json", tiny_data)
    manifest = Manifest.load(tmp_path / "manifest.json")
    denoiser, facts = trained.load(manifest.file("weights.safetensors"))
    assert facts["shape"] == [1, 8, 8]
    assert Run.model_validate(facts["run"]).diffusion.timesteps == 8
    assert denoiser(torch.zeros(2, 1, 8, 8), 3.0).x0.shape == (2, 1, 8, 8)
    history = tables.read(manifest.file("history.parquet"), tables.HISTORY)
    assert history[history.key == "loss"].step.tolist() == [5, 10, 12]
    assert np.isfinite(history.value).all()


def test_the_average_of_the_weights_is_kept(tiny_data: Manifest) -> None:
    """With decay 0 it is the last weights themselves."""
    kept = []
    for decay in (0.0, 0.9):
        train.run(tiny_run(training={"ema_decay": decay, "ema_warmup": False}), RUNTIME, Path("m.json"), tiny_data)
        kept.append(load_file(Manifest.load(Path("m.json")).file("weights.safetensors")))
    assert any(not torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_training_lowers_the_loss(tiny_data: Manifest, tmp_path: Path) -> None:
    train.run(tiny_run(training={"steps": 80}), RUNTIME, tmp_path / "manifest.json", tiny_data)
    history = tables.read(Manifest.load(tmp_path / "manifest.json").file("history.parquet"))
    loss = history[history.key == "loss"].value.to_numpy()
    assert loss[-5:].mean() < 0.7 * loss[:2].mean()


def test_weight_decay_shrinks_weights(tiny_data: Manifest) -> None:
    """Decoupled: 12 steps with lr 0.01 and decay 5 leave about 0.95^12 = 0.54 of a weight that learns nothing."""
    sizes = []
    for decay in (0.0, 5.0):
        run = tiny_run(training={"lr": 1e-2, "weight_decay": decay, "ema_decay": 0.0})
        train.run(run, RUNTIME, Path(f"{decay}.json"), tiny_data)
        weights = load_file(Manifest.load(Path(f"{decay}.json")).file("weights.safetensors"))
        sizes.append(float(weights["time.0.weight"].norm()))
    assert sizes[1] < 0.8 * sizes[0]
