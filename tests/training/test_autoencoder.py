"""The autoencoder and latents stages, and diffusion on latents, on tiny data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config.base import part
from pipeline_lib.config.models import Errors, Sampling
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.errors import bandwidths, cumulative
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.networks import latent_space
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.scores import classifier, controls, evaluate, reference
from pipeline_lib.training import autoencoder, latents, train
from tests.conftest import RUNTIME, tiny_run
from tests.scores.conftest import REFERENCE, SETTINGS, digits, prepared
from tests.training.test_resume import After

OPERATION = {"checkpoint_minutes": 10}


def options(name: str = "kl", **more: Any) -> dict[str, Any]:
    values = {"name": name, "channels": 8, "latent_channels": 2, "steps": 30, "batch_size": 16, "lr": 3e-3, **more}
    return part("networks/autoencoders", values, "autoencoder")


def trained(data: Manifest, config: dict[str, Any] | None = None, out: str = "autoencoder.json") -> Manifest:
    autoencoder.run(config or options(), OPERATION, Path(out), data)
    return Manifest.load(out)


def encoded(data: Manifest, by: Manifest, out: str = "latents.json") -> Manifest:
    latents.run({}, {}, Path(out), data, by)
    return Manifest.load(out)


@pytest.fixture
def data() -> Manifest:
    """300 digits to train on, 60 held out."""
    images, labels = digits()
    return prepared(images[:300], images[300:360], labels[:360])


@pytest.mark.parametrize("name", ["kl", "vq"])
def test_it_learns_to_reconstruct_what_it_has_not_seen(data: Manifest, name: str) -> None:
    facts = [trained(data, options(name, steps=n)).facts for n in (1, 60)]
    assert facts[1]["psnr"] > facts[0]["psnr"] + 2
    assert facts[1]["mse"] == pytest.approx(4 * 10 ** (-facts[1]["psnr"] / 10))
    assert (facts[1]["image_shape"], facts[1]["shape"]) == ([1, 8, 8], [2, 4, 4])


def test_its_errors_are_those_of_the_images_it_gives_back(data: Manifest) -> None:
    made = trained(data)
    space, real = latent_space.load(made), Prepared(data).holdout().images
    again = space.decode(space.encode(torch.from_numpy(np.array(real)))).numpy()
    mse = np.square((again.astype(float) - real) / 127.5).mean()
    assert made.facts["mse"] == pytest.approx(mse)


def test_latents_have_unit_standard_deviation_and_their_images_labels(data: Manifest) -> None:
    made = trained(data)
    found = Prepared(encoded(data, made))
    assert found.images.dtype == np.float32
    assert found.shape == (2, 4, 4)
    assert float(np.std(found.images, dtype=np.float64)) == pytest.approx(1, abs=1e-5)
    assert float(np.mean(found.images, dtype=np.float64)) * made.facts["std"] == pytest.approx(made.facts["mean"])
    assert np.array_equal(found.labels, Prepared(data).labels)
    assert torch.equal(found.floats(slice(3)), torch.from_numpy(np.array(found.images[:3])))
    space = latent_space.load(made)
    again = space.encode(torch.from_numpy(np.array(Prepared(data).images[:3])))
    assert torch.allclose(again, found.floats(slice(3)), atol=1e-5)


def test_resumed_equals_uninterrupted_bit_for_bit(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder.device, "pick", lambda: torch.device("cpu"))
    straight = trained(data)
    Path(straight.folder).rename(tmp_path / "straight")
    for count in (5, 9):
        with monkeypatch.context() as patch:
            patch.setattr(train, "Stop", lambda minutes, count=count: After(count))
            with pytest.raises(TryAgain, match="the next attempt goes on"):
                trained(data)
    assert json.loads(Path("autoencoder.json").read_text())["files"] == trained(data).files
    assert not list(Path(straight.folder).glob("checkpoint*"))


def test_a_second_run_trains_nothing(data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(data)
    monkeypatch.setattr(autoencoder.Fit, "step", lambda self: pytest.fail("trained again"))
    assert trained(data, out="again.json") == first


def test_images_that_the_factor_does_not_divide_are_refused() -> None:
    with pytest.raises(BadConfig, match="f = 2, which does not divide 9x9"):
        trained(prepared(np.zeros((20, 1, 9, 9), np.uint8)))


def test_without_a_holdout_its_errors_are_not_measured(tiny_data: Manifest) -> None:
    facts = trained(tiny_data).facts
    assert (facts["mse"], facts["psnr"]) == (None, None)


def test_mean_square_of_latents_is_plain() -> None:
    values = np.random.default_rng(0).normal(0.3, 2, (7, 2, 3, 3)).astype(np.float32)
    assert bandwidths.mean_square(values, chunk=2) == pytest.approx(np.square(values.astype(float)).mean())


def test_diffusion_on_latents_from_training_to_scores(data: Manifest) -> None:
    """The chain is measured in latent space, images are decoded, and controls have a row of reconstructions."""
    by = trained(data)
    on = encoded(data, by)
    config = tiny_run(network={"attention_resolutions": [2]})
    train.run(config, RUNTIME, Path("train.json"), on, autoencoder=by)
    run = Manifest.load("train.json")
    assert run.facts["shape"] == [2, 4, 4]

    sampling = Sampling(sampler={"name": "ancestral"}, nfe=[4], images=60, clip_x0=False).model_dump(mode="json")
    _stage.run(sampling, {"batch": 32}, Path("sample.json"), run, by)
    sample = Manifest.load("sample.json")
    assert sample.facts["cells"][0]["shape"] == [1, 8, 8]

    bandwidths.run({"seed": 0}, {"forward": 24}, Path("bandwidths.json"), on)
    kernels = Manifest.load("bandwidths.json")
    anatomy = {"observed": 24, "images": 12, "perturbed": 8}
    settings = {
        "sampling": sampling,
        "anatomy": anatomy,
        **Errors(chains=24, permutations=0, times=3).model_dump(mode="json"),
    }
    written = (Path("e.parquet"), Path("t.parquet"), Path("i.npz"), Path("a.parquet"))
    cumulative.run(settings, {"batch": 32}, *written, run, on, kernels)
    assert set(pd.read_parquet("e.parquet")["n"]) == {24}
    chain = next(Path("work/chains").rglob("00004.npy"))
    assert np.load(chain).shape == (24, 2, 4, 4)

    classifier.run(SETTINGS, {}, Path("c.json"), data)
    reference.run(REFERENCE, {}, Path("r.json"), data, Manifest.load("c.json"))
    seen = Manifest.load("c.json"), Manifest.load("r.json")
    scored = {"samples": None, "extrapolate": False}
    evaluate.run(scored, {}, Path("s.parquet"), sample, *seen, influences=Path("si.parquet"))
    assert pd.read_parquet("s.parquet").query("status == 'done'")["value"].notna().all()
    controls.run(scored, {}, Path("k.parquet"), data, *seen, by)
    rows = pd.read_parquet("k.parquet").query("status == 'done'").set_index(["metric", "control"])["value"]
    rows = rows["FD (classifier-digits)"]
    assert rows["floor"] < rows["reconstruction"]


SIGMAS = {"diffusion": {"path": "edm", "prediction": "edm", "sigma_data": 1.0}}
ON_LATENTS: dict[str, dict[str, Any]] = {
    "consistent-dm": {},
    "consistent-dm, edm": SIGMAS,
    "fp-diffusion": {},
    "pfgmpp": {"diffusion": {**SIGMAS["diffusion"], "path": "pfgm"}},
}


def test_other_objectives_learn_latents(data: Manifest) -> None:
    by = trained(data)
    on = encoded(data, by)
    for name, changes in ON_LATENTS.items():
        sizes = {"network": {"attention_resolutions": [2]}, "objective": {"name": name.split(",")[0]}}
        train.run(tiny_run(**sizes, **changes), RUNTIME, Path("train.json"), on, autoencoder=by)
        run = Manifest.load("train.json")
        losses = pd.read_parquet(run.file("history.parquet")).query("key == 'loss'")["value"]
        assert np.isfinite(losses).all(), name
        sampler = {"name": "edm" if "diffusion" in changes else "ancestral"}
        sampling = Sampling(sampler=sampler, nfe=[3], images=8, clip_x0=False).model_dump(mode="json")
        _stage.run(sampling, {"batch": 8}, Path("sample.json"), run, by)
        assert Manifest.load("sample.json").facts["cells"][0]["shape"] == [1, 8, 8], name


def test_another_autoencoder_is_another_set_of_samples(data: Manifest) -> None:
    drawn = []
    sampling = Sampling(sampler={"name": "ancestral"}, nfe=[2], images=8, clip_x0=False).model_dump(mode="json")
    makers = [trained(data, options(seed=seed), f"{seed}.json") for seed in (0, 1)]
    config = tiny_run(network={"attention_resolutions": [2]})
    train.run(config, RUNTIME, Path("train.json"), encoded(data, makers[0]), autoencoder=makers[0])
    for maker in makers:
        _stage.run(sampling, {"batch": 8}, Path("sample.json"), Manifest.load("train.json"), maker)
        drawn.append(Manifest.load("sample.json"))
    assert drawn[0].fingerprint != drawn[1].fingerprint
