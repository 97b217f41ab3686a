"""Fine-tuning: a training starts from another run's averaged weights, as an edge of the workflow."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.__main__ import main
from pipeline_lib.config.plan import Plan
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained
from pipeline_lib.records.store import Manifest
from tests.config.test_plan import changed, plan
from tests.conftest import RUNTIME, tiny_run, write_config
from tests.training.test_resume import fit


def command(data: Manifest, config: dict, out: str, init: str = "") -> tuple[int, Path]:
    data.save("data.json")
    written, output = write_config(Path(out) / "config.json", "train", config, RUNTIME), Path(out) / "manifest.json"
    where = [
        "--config",
        str(written),
        "--data",
        "data.json",
        "--output",
        str(output),
        "--init",
        *([init] if init else []),
    ]
    return main(["train", *where]), output


def weights(manifest: Path) -> dict[str, torch.Tensor]:
    return trained.load(Manifest.load(manifest).file("weights.safetensors"))[0].network.state_dict()


def test_training_goes_on_from_the_weights_it_is_given(tiny_data: Manifest) -> None:
    """With a vanishing rate the weights stay those of the first run; without a start they are others."""
    _, first = command(tiny_data, tiny_run(), "first")
    still = tiny_run(training={"lr": 1e-12, "steps": 2})
    assert command(tiny_data, still, "tuned", str(first))[0] == 0
    assert command(tiny_data, still, "fresh")[0] == 0
    for key, value in weights(first).items():
        assert torch.allclose(value, weights(Path("tuned/manifest.json"))[key], atol=1e-6)
    apart = [
        not torch.allclose(v, weights(Path("fresh/manifest.json"))[k], atol=1e-3) for k, v in weights(first).items()
    ]
    assert any(apart)


def test_another_start_is_another_training(tiny_data: Manifest) -> None:
    folders = set()
    for seed in (0, 1):
        _, first = command(tiny_data, {**tiny_run(), "seed": seed}, f"first{seed}")
        command(tiny_data, tiny_run(training={"steps": 2}), f"tuned{seed}", str(first))
        folders.add(Manifest.load(f"tuned{seed}/manifest.json").folder)
    assert len(folders) == 2


def test_weights_that_do_not_fit_are_refused(tiny_data: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    first = fit(tiny_data, [])
    first.save("first.json")
    assert command(tiny_data, tiny_run(network={"channels": 16}), "tuned", "first.json")[0] == 78
    assert "do not fit the network" in caplog.text


def tuned(start: str, **more: object) -> Plan:
    values = changed("methods/ddpm/variants/tuned", {"preset": "paper", "init_from": start, **more})
    return plan(values)


def test_the_start_is_an_edge_of_the_workflow() -> None:
    one = tuned("ddpm/paper")
    path = {i.variant: i for i in one.instances}["tuned"]
    wild = type("W", (), {"dataset": "digits", "method": "ddpm", "variant": "tuned", "seed": "0"})
    assert path.init == "digits/ddpm/paper/s0"
    assert one.init(wild) == ["results/tiny/digits/ddpm/paper/s0/train/manifest.json"]
    wild.variant = "paper"
    assert one.init(wild) == []


@pytest.mark.parametrize(
    ("start", "more", "sentence"),
    [
        ("ddpm/papr", {}, "has no run 'digits/ddpm/papr/s0' to start from; did you mean 'digits/ddpm/paper/s0'"),
        ("ddpm/tuned", {}, "goes round in a circle"),
        ("ddpm/paper", {"run": {"network": {"channels": 64}}}, "which has another network, path or prediction"),
        ("ddpm/paper", {"seeds": [5]}, "has no run 'digits/ddpm/paper/s5' to start from"),
    ],
)
def test_a_start_that_cannot_be_is_refused(start: str, more: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        tuned(start, **more)
