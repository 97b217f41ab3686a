"""Images through the network per training image: what the trainer counts is what the algorithm says."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib import registry
from pipeline_lib.config.base import load_part
from pipeline_lib.config.models import Run
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from tests.conftest import RUNTIME, tiny_run

EDM = {"path": "edm", "prediction": "edm"}
REG = {"training": {"mmd_group": 8}}
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "ddpm": ({}, 1),
    "ddpm-ip": ({"objective": {"name": "ddpm-ip"}}, 1),
    "adm": ({"objective": {"name": "adm"}, "diffusion": {"learned_variance": True}}, 1),
    "adm-ip": ({"objective": {"name": "adm-ip"}, "diffusion": {"learned_variance": True}}, 1),
    "edm": ({"objective": {"name": "edm"}, "diffusion": EDM}, 1),
    "pfgmpp": ({"objective": {"name": "pfgmpp"}, "diffusion": {**EDM, "path": "pfgm"}}, 1),
    "fp-diffusion": ({"objective": {"name": "fp-diffusion"}}, 4),
    "fp-diffusion, two probes": ({"objective": {"name": "fp-diffusion", "probes": 2}}, 4),
    # 1 + 2 chains (n - 1 calls each, then the end)
    "consistent-dm on edm": ({"objective": {"name": "consistent-dm", "chain_steps": 3}, "diffusion": EDM}, 7),
    # and a first call of the chains, which are not told of the augmentation
    "consistent-dm as released": (
        {
            "objective": {"name": "consistent-dm", "chain_steps": 3, "augment": 0.1, "chains_told": False},
            "diffusion": EDM,
            "network": {"name": "songunet", "augment": True},
        },
        8,
    ),
    # t = 1, 2: no further step; 3: one; 4 to 8: two, of 8
    "consistent-dm": ({"objective": {"name": "consistent-dm", "chain_steps": 3}}, 3 + 2 * 11 / 8),
    # half of the images make one step
    "ddpm-reg, L = 1": ({"objective": {"name": "ddpm-reg", "bootstrap_length": 1}, **REG}, 1.5),
    # 1 or 2 steps, but only 1 from t = T - 1 = 7
    "ddpm-reg, L = 2": (
        {"objective": {"name": "ddpm-reg", "bootstrap_length": 2, "rho": 0, "estimator": "importance"}, **REG},
        1 + (7 * 1.5 + 1) / 8 / 2,
    ),
}
EXACT = 1e-12  # but where the number of steps is drawn
TOLERANCE = {"consistent-dm": 0.04, "ddpm-reg, L = 2": 0.08}


@pytest.mark.parametrize("case", CASES)
def test_it_counts_what_the_algorithm_says(tiny_data: Manifest, tmp_path: Path, case: str) -> None:
    changes, known = CASES[case]
    config = tiny_run(**{**changes, "training": {**changes.get("training", {}), "steps": 20}})
    run = Run.model_validate({k: v for k, v in config.items() if k != "seed"})
    module, options = load_part("objectives", run.objective)
    assert module.network_calls(options, run) == pytest.approx(known)
    train.run(config, {**RUNTIME, "grid_every": 10}, tmp_path / "manifest.json", tiny_data)  # grids are not counted
    folder = Path(Manifest.load(tmp_path / "manifest.json").folder)
    counted = json.loads((folder / "costs.json").read_text())["network_calls"]
    assert counted == pytest.approx(known, rel=TOLERANCE.get(case, EXACT))


def test_every_objective_says_how_many() -> None:
    assert [
        n for n in registry.names("objectives") if not hasattr(registry.find("objectives", n), "network_calls")
    ] == []
