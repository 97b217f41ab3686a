"""Gradients added up over parts of a batch: the same training, and layouts that would split a group are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline_lib import device
from pipeline_lib.config.layout import rows_at_once
from pipeline_lib.config.models import Run
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.objectives import Batch
from pipeline_lib.records import tables
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.training import train
from pipeline_lib.training.gradients import Gradients, Part
from tests.conftest import RUNTIME, tiny_run
from tests.training.parallel_cases import CASES, ROUNDING


def trained(name: str, micro_batch: int | None, data: Manifest, **more: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Weights and history; each training finds an empty store."""
    folder = Path(f"{name.replace(' ', '-')}-{micro_batch}")
    folder.mkdir()
    train.run(tiny_run(**CASES[name]), {**RUNTIME, "micro_batch": micro_batch, **more}, folder / "m.json", data)
    made = Path(Manifest.load(folder / "m.json").folder)
    weights, history = load_file(made / "weights.safetensors"), tables.read(made / "history.parquet")
    made.rename(folder / "made")
    return weights, history


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_give_the_weights_of_the_whole(tiny_data: Manifest, name: str) -> None:
    (whole, told), (parts, also) = (trained(name, micro, tiny_data) for micro in (None, 8))
    for key, weights in whole.items():
        assert np.allclose(parts[key], weights, rtol=0, atol=ROUNDING[name]), key
    assert np.allclose(also.value, told.value, rtol=1e-3)
    assert also.key.tolist() == told.key.tolist()


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with room for 4 images at once, which nobody else uses."""
    whole = Gradients.add

    def add(self: Gradients, batch: Batch, rows: range) -> Part:
        part = whole(self, batch, rows)
        if len(rows) > 4:
            raise torch.OutOfMemoryError if len(rows) > 8 else RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return part

    monkeypatch.setattr(Gradients, "add", add)
    monkeypatch.setattr(device, "crowded", lambda where: False)


def test_what_does_not_fit_the_gpu_is_taken_in_smaller_parts(
    tiny_data: Manifest, small_gpu: None, caplog: pytest.LogCaptureFixture
) -> None:
    """To the bit the training that was told so, although gradients were there when it failed."""
    whole, _ = trained("ddpm", None, tiny_data, checkpoint_minutes=0)
    assert [r.message for r in caplog.records if "do not fit" in r.message] == [
        "16 images at once do not fit the GPU: it takes 8, which takes longer (runtime.micro_batch).",
        "8 images at once do not fit the GPU: it takes 4, which takes longer (runtime.micro_batch).",
    ]
    engine = json.loads(Path("ddpm-None/made/costs.json").read_text())["engine"]
    assert engine == {"kernels": False, "bf16": False, "recorded": False, "rows": 4, "streamed": False}
    assert json.loads(Path("ddpm-None/made/costs.json").read_text())["network_calls"] == 1
    parts, _ = trained("ddpm", 4, tiny_data)
    assert all(np.array_equal(parts[key], weights) for key, weights in whole.items())


def test_groups_that_do_not_fit_the_gpu_are_refused(tiny_data: Manifest, small_gpu: None) -> None:
    config = tiny_run(**GROUPED)
    with pytest.raises(BadConfig, match=r"8 images at once do not fit the memory of the GPU; .* cannot be halved"):
        train.run(config, RUNTIME, Path("m.json"), tiny_data)


def test_a_gpu_that_others_fill_is_tried_again(
    tiny_data: Manifest, small_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "crowded", lambda where: True)
    with pytest.raises(TryAgain, match="8 images at once do not fit the GPU, whose memory others use as well"):
        train.run(tiny_run(**GROUPED), RUNTIME, Path("m.json"), tiny_data)


def run(**changes: Any) -> Run:
    return Run.model_validate({k: v for k, v in tiny_run(**changes).items() if k != "seed"})


GROUPED = {"objective": {"name": "ddpm-reg"}, "training": {"mmd_group": 8}}


@pytest.mark.parametrize(
    ("changes", "processes", "micro_batch", "sentence"),
    [
        ({}, 3, None, "batch_size is 16, which 3 processes cannot share evenly"),
        ({}, 2, 5, "batch_size is 16, which 2 processes with runtime.micro_batch 5 cannot"),
        ({}, 2, 16, "cannot share evenly"),
        ({}, 32, None, "cannot share evenly"),
        (GROUPED, 4, None, "4 images at once .* would split groups of training.mmd_group 8"),
        (GROUPED, 1, 4, "would split groups"),
        ({"objective": {"name": "fp-diffusion", "beta_scalar": 0.01}}, 2, None, "compares all 16 images"),
    ],
)
def test_layouts_without_a_meaning_are_refused(
    changes: dict[str, Any], processes: int, micro_batch: int | None, sentence: str
) -> None:
    with pytest.raises(BadConfig, match=sentence):
        rows_at_once(run(**changes), processes, micro_batch)


def test_layouts_that_keep_groups_whole_are_taken() -> None:
    assert rows_at_once(run(**GROUPED), 2, None) == rows_at_once(run(**GROUPED), 1, 8) == 8
    assert rows_at_once(run(**GROUPED), 1, None) == 16
    assert rows_at_once(run(objective={"name": "fp-diffusion", "beta_scalar": 0.01}), 1, None) == 16
    assert rows_at_once(run(objective={"name": "fp-diffusion"}), 2, 4) == 4


def test_a_term_of_ones_own_that_is_no_mean_is_refused(tiny_data: Manifest) -> None:
    Path("mine.py").write_text(
        "from pipeline_lib.objectives.ddpm import DDPM, Options\n"
        "class Norm(DDPM):\n"
        "    def terms(self, denoiser, batch):\n"
        "        return {'simple': super().terms(denoiser, batch)['simple'].norm().reshape(1)}\n"
        "build = Norm\n"
    )
    config = tiny_run(objective={"name": "mine.py"})
    train.run(config, RUNTIME, Path("whole.json"), tiny_data)
    next(STORE.glob("train-*")).rename("before")
    with pytest.raises(BadConfig, match="'simple' has 1 values for 4 images, so it is no mean over the parts"):
        train.run(config, {**RUNTIME, "micro_batch": 4}, Path("parts.json"), tiny_data)
