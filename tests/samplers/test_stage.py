"""The sample stage: cells, reuse, interruption."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline_lib.config.models import Sampling
from pipeline_lib.data.prepared import to_float, to_uint8
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _stage
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run


@pytest.fixture
def trained(tiny_data: Manifest, tmp_path: Path) -> Manifest:
    train.run(tiny_run(), RUNTIME, tmp_path / "train.json", tiny_data)
    return Manifest.load(tmp_path / "train.json")


def sample(trained: Manifest, nfe: list[int], batch: int = 16, **more: Any) -> Manifest:
    output = Path("out/manifest.json")
    output.parent.mkdir(exist_ok=True)
    config = Sampling(sampler={"name": "ancestral"}, nfe=nfe, images=40, **more).model_dump(mode="json")
    _stage.run(config, {"batch": batch}, output, trained)
    return Manifest.load(output)


def images(manifest: Manifest, cell: int = 0) -> np.ndarray:
    return np.load(manifest.file(manifest.facts["cells"][cell]["images"]))


def test_each_number_of_calls_is_a_cell_with_counted_calls(trained: Manifest) -> None:
    manifest = sample(trained, [2, 8])
    assert json.loads(Path("out/costs.json").read_text())["cpu_seconds"] > 0
    assert [(c["nfe"], c["calls"], c["count"], c["shape"]) for c in manifest.facts["cells"]] == [
        (2, 2, 40, [1, 8, 8]),
        (8, 8, 40, [1, 8, 8]),
    ]
    assert images(manifest).dtype == np.uint8
    assert manifest.file("nfe0002/grid.png").stat().st_size > 0


def test_chains_that_do_not_fit_the_gpu_are_called_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def denoiser(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> Prediction:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return Prediction(x, t[:, None], t[:, None], 2 * x + t[:, None], "eps")

    denoiser.path = None
    monkeypatch.setattr(_stage.device, "crowded", lambda where: False)
    counted, x = _stage.Counted(denoiser, 100), torch.arange(8.0)[:, None]
    assert torch.equal(counted(x, 5.0).output, 2 * x + 5)
    assert torch.equal(counted(x, 1.0).output, 2 * x + 1)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert counted.images == 16
    with pytest.raises(BadConfig, match="activations for 1 image do not fit the memory of the GPU; take a smaller"):
        counted._halve(1, x.device)


def test_images_are_rounded_to_the_nearest_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    for less_than_half in (-0.45, 0.0, 0.45):
        assert torch.equal(to_uint8(to_float(levels) + less_than_half / 127.5), levels)


def test_a_cell_that_is_there_is_not_drawn_again(trained: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample(trained, [2, 8])
    drawn = []
    original = _stage.Cell._draw
    monkeypatch.setattr(_stage.Cell, "_draw", lambda *a: (drawn.append(a[2]), original(*a))[1])
    again = sample(trained, [8, 4])
    assert drawn == [4]
    assert again.files["nfe0008/images.npy"] == first.files["nfe0008/images.npy"]
    assert set(again.files) == {f"nfe000{n}/{kind}" for n in (4, 8) for kind in ("images.npy", "grid.png")}


def test_an_interrupted_cell_goes_on(trained: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample(trained, [8], seed=1)
    whole, done = images(first).astype(int), Path(first.folder) / "nfe0008"
    for file in done.iterdir():
        file.unlink()
    original, blocks = _stage.draw, []

    def stops(*args: object, **more: object) -> object:
        blocks.append(args[3])
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return original(*args, **more)

    monkeypatch.setattr(_stage, "draw", stops)
    monkeypatch.setattr(_stage, "SAVE_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        sample(trained, [8], seed=1)
    assert json.loads((done / "part.json").read_text())["done"] == 32
    monkeypatch.setattr(_stage, "draw", original)
    manifest = sample(trained, [8], seed=1)
    assert np.abs(images(manifest).astype(int) - whole).max() <= 1
    assert manifest.facts["cells"][0]["calls"] == 8


def test_two_jobs_draw_a_shared_cell_once(trained: Manifest) -> None:
    """Two samplings that share a store entry run at once: the second waits, and finds whole images."""
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(sample, trained, [8], 4) for _ in range(2)]
        first, second = (job.result() for job in jobs)
    assert first == second
    assert images(first).std() > 0


def test_another_seed_is_another_set(trained: Manifest) -> None:
    assert (images(sample(trained, [4])) != images(sample(trained, [4], seed=1))).mean() > 0.5


def test_corrections_change_the_images_and_one_that_does_nothing_leaves_every_bit(trained: Manifest) -> None:
    def with_b(b: float) -> np.ndarray:
        return images(sample(trained, [4], corrections=[{"name": "epsilon-scaling", "b": b}]))

    plain = images(sample(trained, [4]))
    assert np.array_equal(with_b(1.0), plain)
    assert not np.array_equal(with_b(1.3), plain)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_chain_that_is_not_finite_ends_the_stage_before_it_is_an_image(
    trained: Manifest, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    original = _stage.draw

    def diverges(*args: Any, **more: Any) -> torch.Tensor:
        x = original(*args, **more)
        x[3, 0, 2, 2] = broken
        return x

    monkeypatch.setattr(_stage, "draw", diverges)
    with pytest.raises(BadData, match=r"1 of 16 chains of the sampler ancestral at 4 calls .*clip_x0: true"):
        sample(trained, [4])
    assert list(Path("results").rglob("images.part.npy"))
    assert not list(Path("results").rglob("images.npy"))
