"""Further averages of the weights, and snapshots: each is what another training would have ended with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Run, Training
from pipeline_lib.exits import BadConfig
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
    assert Training(steps=1000, snapshots=[1e-4, 0.25, 0.2501, 0.9999]).snapshot_steps == [1, 250]


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
    ],
)
def test_what_cannot_be_is_refused(training: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        parse(Run, {"objective": {"name": "ddpm"}, "training": training})


def test_what_is_not_asked_for_is_no_part_of_the_identity() -> None:
    content = Training().model_dump(mode="json")
    assert not {"averages", "snapshots"} & content.keys()
