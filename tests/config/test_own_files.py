"""A method from a user's own file: found by its path, identified by its content."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Oracle
from pipeline_lib.config.base import build_part, load_part, part
from pipeline_lib.config.models import Diffusion, Training, parse_experiment
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import build
from pipeline_lib.exits import BadConfig
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import Draw
from pipeline_lib.training import train
from pipeline_lib.training.batches import Batches
from tests.config.test_plan import MINIMAL, changed
from tests.config.test_plan import plan as planned
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


ROOT = Path(__file__).parents[2]


def readme() -> Path:
    """The files of the README's example, as a reader would write them; returns the configuration."""
    text = (ROOT / "README.md").read_text().split("**Add a method.**")[1]
    for name, kind in (("mine.py", "python"), ("mine.yaml", "yaml")):
        Path(name).write_text(re.search(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1])
    shutil.copy(ROOT / "config.yaml", "config.yaml")
    return Path("mine.yaml")


def test_the_example_of_the_readme_differs_from_its_control_in_the_method_alone() -> None:
    plan = load(readme())
    runs = {f"{i.method}/{i.variant}": i.run for i in plan.instances}
    assert runs["mine/main"].objective["gamma"] == 0.1
    same = {"exclude": {"objective"}}
    assert runs["mine/main"].model_dump(**same) == runs["ddpm/paper"].model_dump(**same)
    assert plan.differences == []
    assert ["mine", "main"] in plan.comparisons["table1"]["rows"]
    assert [list(plan.samplings_of(i)) for i in plan.instances if i.method == "mine"] == [["ancestral"]] * 2
    assert next(c["expected_calls"] for c in plan.summary()["costs"] if c["method"] == "mine") is None  # unsaid
    other = "preset: paper, run: { diffusion: { prediction: v } }"
    Path("mine.yaml").write_text(Path("mine.yaml").read_text().replace("preset: paper", other))
    with pytest.raises(BadConfig, match=r"variants\.main: mine\.py needs diffusion\.prediction: eps"):
        load(Path("mine.yaml"))


class Echo(torch.nn.Module):
    """Predicts its input."""

    def forward(self, x: torch.Tensor, *_: Any) -> torch.Tensor:
        return x


def test_the_example_of_the_readme_trains_and_without_extra_noise_is_ddpm(tiny_data: Manifest, tmp_path: Path) -> None:
    readme()
    path = Diffusion(timesteps=8)
    denoiser = Denoiser(Echo(), build(path), path)
    batch = Batches(Prepared(tiny_data), Training(batch_size=16), 0, torch.device("cpu")).at(0)

    def terms(values: dict[str, Any]) -> torch.Tensor:
        module, options = load_part("objectives", values)
        return module.build(options).terms(denoiser, batch)["simple"]

    plain = terms({"name": "ddpm"})
    assert torch.allclose(terms({"name": "mine.py", "gamma": 0.0}), plain)
    assert not torch.allclose(terms({"name": "mine.py", "gamma": 0.5}), plain, rtol=0.05)
    train.run(tiny_run(objective={"name": "mine.py"}), RUNTIME, tmp_path / "manifest.json", tiny_data)
    assert json.loads((tmp_path / "manifest.json").read_text())["facts"]["steps"] == 12


def examples_of_samplers() -> None:
    """The files of docs/samplers.md, as a reader would write them."""
    text = (ROOT / "docs" / "samplers.md").read_text().split("## Your own")[1]
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path(code[3 : code.index(":")]).write_text(code)
    values = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1])
    drawn = planned({**MINIMAL, **values})
    assert drawn.samplings_of(drawn.instances[0]).keys() == {"solver", "thresholded"}


def end_of(name: str, nfe: int, *corrections: str) -> torch.Tensor:
    """(B, 3, 1, 1): x_0 from the same noise by the exact denoiser of Gaussian data."""
    data = gaussian(torch.tensor([0.9, -0.2, 0.1]), torch.diag(torch.tensor([0.05, 0.03, 0.08])))
    path = build(Diffusion(timesteps=1000))
    module, options = load_part("samplers", part("samplers", name, "here"))
    x, draw = torch.randn(64, 3, 1, 1, generator=torch.Generator().manual_seed(0)), Draw(Noise(0), torch.arange(64))
    made = [build_part("samplers/corrections", part("samplers/corrections", c, "here"), path, nfe) for c in corrections]
    return module.sample(Oracle(path, data), path.grid(nfe), x, draw, options, corrections=made)


def test_the_sampler_of_the_docs_is_of_second_order_where_ddim_is_of_first() -> None:
    examples_of_samplers()
    true = end_of("solver.py", 1000)
    errors = {(name, n): float((end_of(name, n) - true).norm()) for name in ("ddim", "solver.py") for n in (100, 200)}
    assert errors["ddim", 100] / errors["ddim", 200] == pytest.approx(2, abs=0.3)
    assert errors["solver.py", 100] / errors["solver.py", 200] == pytest.approx(4, abs=0.5)


def test_the_correction_of_the_docs_keeps_images_in_range() -> None:
    examples_of_samplers()
    assert float(end_of("ddim", 20).abs().max()) > 1
    assert float(end_of("ddim", 20, "threshold.py").abs().max()) <= 1
