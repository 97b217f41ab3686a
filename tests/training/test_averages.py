"""Further averages of the weights, and snapshots: each is what another training would have ended with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Run, Training
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained as networks
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run

SAMPLING = {"sampler": {"name": "ancestral"}, "nfe": [4], "images": 8}


def trained(data: Manifest, **training: Any) -> Manifest:
    train.run(tiny_run(training=training), RUNTIME, Path("m.json"), data)
    return Manifest.load("m.json")


def weights(made: Manifest, name: str = "weights.safetensors") -> dict[str, Tensor]:
    return load_file(made.file(name))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_an_average_is_the_main_one_of_a_training_of_its_length(tiny_data: Manifest) -> None:
    made = trained(tiny_data, averages={"short": {"decay": 0.5}, "images": {"halflife_images": 40}})
    for name, length in (("short", {"ema_decay": 0.5}), ("images", {"ema_halflife_images": 40})):
        assert equal(weights(made, f"weights-{name}.safetensors"), weights(trained(tiny_data, **length)))
    assert not equal(weights(made, "weights-short.safetensors"), weights(made))


def test_what_is_kept_beside_it_does_not_change_the_main_average(tiny_data: Manifest) -> None:
    """To the byte: samples of one training serve the other."""
    alone = trained(tiny_data)
    made = trained(tiny_data, averages={"short": {"decay": 0.5}}, snapshots=[0.5])
    assert made.files["weights.safetensors"] == alone.files["weights.safetensors"]
    assert set(made.files) - set(alone.files) == {"weights-short.safetensors", "snapshots/step-0000006.safetensors"}


def test_a_snapshot_is_the_end_of_a_training_of_so_many_steps(tiny_data: Manifest) -> None:
    made = trained(tiny_data, snapshots=[0.25, 0.75])
    assert made.facts["snapshots"] == [3, 9]
    for steps in (3, 9):
        snapshot = weights(made, f"snapshots/step-{steps:07d}.safetensors")
        assert equal(snapshot, weights(trained(tiny_data, steps=steps)))


def test_the_seconds_of_snapshots_are_kept(tiny_data: Manifest) -> None:
    made = trained(tiny_data, snapshots=[0.25, 0.75])
    kept = json.loads((Path(made.folder) / "costs.json").read_text())["snapshots"]
    assert [one["step"] for one in kept] == [3, 9, 12]
    assert 0 < kept[0]["seconds"] < kept[1]["seconds"] < kept[2]["seconds"]


def test_steps_of_snapshots_lie_within_the_training() -> None:
    assert Training(steps=1000, snapshots=[1e-4, 0.25, 0.251]).snapshot_steps == [1, 250, 251]


def test_every_file_says_which_average_after_which_step(tiny_data: Manifest) -> None:
    averages = {"short": {"decay": 0.5}, "images": {"halflife_images": 40}}
    made = trained(tiny_data, averages=averages, snapshots=[0.25])
    said = {}
    for name in made.files:
        if name.endswith(".safetensors"):
            about = networks.about(made.file(name))
            said[name] = (about["step"], networks.average_of(about))
    assert said == {
        "weights.safetensors": (12, "ema (decay 0.9)"),
        "weights-short.safetensors": (12, "short (decay 0.5)"),
        "weights-images.safetensors": (12, "images (halflife images 40)"),
        "snapshots/step-0000003.safetensors": (3, "ema (decay 0.9)"),
    }


def test_samples_say_which_weights_they_were_drawn_from(tiny_data: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    made = trained(tiny_data, averages={"short": {"decay": 0.5}})
    with caplog.at_level("INFO"):
        _stage.run({**SAMPLING, "weights": "short"}, {"batch": 8}, Path("sample/manifest.json"), made)
    assert "drawing from the average short (decay 0.5) after step 12" in caplog.text
    sha = made.files["weights-short.safetensors"]
    source = Manifest.load("sample/manifest.json").facts["weights"]
    assert source == {"sha256": sha, "step": 12, "average": {"name": "short", "decay": 0.5}}


def test_weights_that_do_not_say_it_are_sampled_all_the_same(tiny_data: Manifest) -> None:
    """Files of before it was written into them."""
    made = trained(tiny_data)
    path = made.file("weights.safetensors")
    about = networks.about(path)
    networks.write(path, networks.tensors(path), {k: about[k] for k in ("run", "shape", "classes")})
    old = replace(made, files={**made.files, "weights.safetensors": sha256(path)})
    _stage.run(SAMPLING, {"batch": 8}, Path("sample/manifest.json"), old)
    assert Manifest.load("sample/manifest.json").facts["weights"] == {"sha256": sha256(path)}


def test_a_sampling_draws_from_the_average_that_it_names(tiny_data: Manifest) -> None:
    made = trained(tiny_data, averages={"short": {"decay": 0.5}})
    other = trained(tiny_data, ema_decay=0.5)
    drawn = []
    for config, source in (({**SAMPLING, "weights": "short"}, made), (SAMPLING, other), (SAMPLING, made)):
        _stage.run(config, {"batch": 8}, Path("sample/manifest.json"), source)
        drawn.append(Manifest.load("sample/manifest.json").files["nfe0004/images.npy"])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"averages": {"ema": {"decay": 0.5}}}, "is the average of ema_decay"),
        ({"averages": {"short": {}}}, "needs either decay or halflife_images"),
        ({"averages": {"short": {"decay": 0.5, "halflife_images": 3}}}, "needs either decay or halflife_images"),
        ({"snapshots": [0.5, 0.2]}, "the values must rise"),
        ({"snapshots": [1.0]}, "less than 1"),
        ({"steps": 1000, "snapshots": [0.25, 0.2501]}, "snapshots 0.25 and 0.2501 of 1000 steps are one, 250"),
        ({"steps": 1000, "snapshots": [1e-5, 1e-4]}, "snapshots 1e-05 and 0.0001 of 1000 steps are one, 1:"),
        ({"steps": 1000, "snapshots": [0.5, 0.9999]}, "snapshot 0.9999 of 1000 steps is the end"),
    ],
)
def test_what_cannot_be_is_refused(training: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        parse(Run, {"objective": {"name": "ddpm"}, "training": training})


def test_what_is_not_asked_for_is_no_part_of_the_identity() -> None:
    content = Training().model_dump(mode="json")
    assert not {"averages", "snapshots"} & content.keys()
