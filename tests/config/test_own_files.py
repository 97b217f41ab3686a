"""A method from a user's own file: found by its path, identified by its content."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from tests.config.test_plan import MINIMAL, changed
from tests.conftest import RUNTIME, tiny_run

MINE = '''
"""The simple loss, weighted."""
from pipeline_lib.config.base import Model
from pipeline_lib.objectives import ddpm

class Options(Model):
    factor: float = 2.0

PRESETS = {"mine": {"training": {"lr": 0.5}}}

def build(options):
    objective = ddpm.build(ddpm.Options())
    objective.weights = {"simple": options.factor}
    return objective
'''


def plan() -> Plan:
    values = changed("methods/mine", {"objective": "mine.py", "variants": {"main": {"preset": "mine"}}})
    return Plan(parse_experiment(values))


def configs() -> dict[str, Any]:
    return {folder: config["config"] for folder, config in plan().stage_configs()}


def test_it_is_found_with_its_options_and_presets() -> None:
    Path("mine.py").write_text(MINE)
    run = next(i.run for i in plan().instances if i.method == "mine")
    assert run.objective["factor"] == 2.0
    assert run.training.lr == 0.5


def test_editing_it_changes_its_own_training_alone() -> None:
    Path("mine.py").write_text(MINE)
    before = configs()
    Path("mine.py").write_text(MINE + "\n# another thought")
    after = configs()
    assert {k for k in before if before[k] != after[k]} == {"digits/mine/main/s0/train"}


def test_it_trains_and_a_late_edit_is_noticed(tiny_data: Manifest, tmp_path: Path) -> None:
    Path("mine.py").write_text(MINE)
    config = tiny_run(objective={"name": "mine.py"})
    train.run(config, RUNTIME, tmp_path / "manifest.json", tiny_data)
    assert json.loads((tmp_path / "manifest.json").read_text())["facts"]["steps"] == 12
    Path("mine.py").write_text(MINE + "\n# edited while the job was queued")
    with pytest.raises(BadConfig, match=r"mine\.py was edited after this job was planned"):
        train.run({**config, "seed": 1}, RUNTIME, tmp_path / "manifest.json", tiny_data)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BadConfig, match=r"the file mine.py named in the configuration does not exist"):
        plan()
    assert MINIMAL["methods"].keys() == {"ddpm"}
