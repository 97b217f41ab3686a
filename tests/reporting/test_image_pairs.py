"""Grids before and after: the right images in the right places, and words that say how they were drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.records.store import Manifest
from pipeline_lib.reporting import figures, image_pairs
from tests.reporting.compared_tree import Grown, values

DDIM: dict[str, Any] = {"sampler": {"name": "ddim", "eta": 0.2}, "images": 100}
SAMPLING = {
    "ddim": {**DDIM, "nfe": [10, 20]},
    "scaled": {
        **DDIM,
        "nfe": [5, 10, 20],
        "corrections": [{"name": "epsilon-scaling", "b": 1.01}],
        "control": "ddim",
    },
    "apart": {**DDIM, "nfe": [10], "seed": 7, "control": "ddim"},
    "alone": {**DDIM, "nfe": [10]},
}


@pytest.fixture
def tree() -> Grown:
    """Two seeds in all samplings: image i of a cell is all i, 100 more at 20 calls, and 50 more where scaled."""
    ddpm = {"ddpm": values([0])["methods"]["ddpm"]}
    table = {"table1": {"title": "Methods", "rows": ["ddpm/paper"]}}
    built = Grown([3, 4], methods=ddpm, sampling=SAMPLING, sweeps={}, comparisons=table)
    for seed in (3, 4):
        for name, sampling in SAMPLING.items():
            place = f"digits/ddpm/paper/s{seed}/{name}/sample"
            cells = [{"nfe": nfe, "images": f"{nfe}.npy"} for nfe in sampling["nfe"]]
            built._manifest(place, {"cells": cells})
            for nfe in sampling["nfe"]:
                level = 100 * (nfe == 20) + 50 * (name == "scaled") + np.arange(12)
                images = np.broadcast_to(level[:, None, None, None], (12, 1, 4, 4)).astype(np.uint8)
                np.save(Path(Manifest.load(built.folder / place / "manifest.json").folder) / f"{nfe}.npy", images)
    return built


def names(tree: Grown) -> list[str]:
    return sorted(p.name for p in (tree.folder / "figures").glob("pairs-*"))


def test_only_samplings_from_the_noise_of_their_control_are_shown_and_the_first_seed_alone(tree: Grown) -> None:
    (tree.folder / "figures").mkdir()
    (tree.folder / "figures/pairs-digits-ddpm-paper-old.svg").write_text("of a sampling that is no more")
    figures.run(tree.folder, tree.experiment)
    assert names(tree) == ["pairs-digits-ddpm-paper-scaled.svg"]
    text = (tree.folder / "figures/pairs-digits-ddpm-paper-scaled.svg").read_text()
    assert "DDPM on digits, seed 3: rows are chains 0 to 7" in text
    assert "ddim: ddim (eta 0.2)" in text
    assert "scaled: ddim (eta 0.2), epsilon-scaling (b 1.01)" in text


def test_pairs_are_the_same_chains_at_the_same_number_of_calls(tree: Grown) -> None:
    one = tree.experiment["instances"][0]
    found = list(image_pairs._pairs(tree.folder, tree.experiment, one, "scaled", {}))
    assert [pair.nfe for pair in found] == [10, 20]
    for pair in found:
        assert pair.before[:, 0, 0, 0].tolist() == [100 * (pair.nfe == 20) + i for i in range(8)]
        assert (pair.after == pair.before + 50).all()


def test_found_constants_are_said(tree: Grown) -> None:
    factors = {"name": "epsilon-scaling", "b": 1.0, "factors": [1.01, 1.0021234, 1.03]}
    one = tree.experiment["instances"][0]
    found = {("digits", "ddpm", "paper", 3, "scaled", 10): json.dumps(factors)}
    texts = [p.corrections for p in image_pairs._pairs(tree.folder, tree.experiment, one, "scaled", found)]
    assert "epsilon-scaling (factors 1.002 to 1.03), epsilon-scaling (b 1.01)" in texts[0]
    assert texts[1] == "ddim (eta 0.2), epsilon-scaling (b 1.01)"


def test_a_pruned_cell_leaves_no_pair(tree: Grown) -> None:
    for nfe in (10, 20):
        place = tree.folder / "digits/ddpm/paper/s3/ddim/sample/manifest.json"
        (Path(Manifest.load(place).folder) / f"{nfe}.npy").unlink()
    figures.run(tree.folder, tree.experiment)
    assert names(tree) == []


def test_a_strip_has_the_images_above_each_other_in_colour_and_large_ones_smaller() -> None:
    images = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    picture = image_pairs.strip(images)
    assert picture.shape == (8, 2, 3)
    assert (picture[:2] == images[0].transpose(1, 2, 0)).all()
    assert (picture[2:4] == 255).all()
    assert (picture[4:6] == images[1].transpose(1, 2, 0)).all()
    large = np.zeros((1, 1, 256, 256), np.uint8)
    large[..., ::2, :] = 200
    assert image_pairs.strip(large).shape == (130, 128, 3)
    assert (image_pairs.strip(large)[:128] == 100).all()
