"""What `plan` says, against counts by hand and against what the stages make."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from pipeline_lib.config.plan import load
from pipeline_lib.errors.chains import measured
from pipeline_lib.estimate import SPARE, STATE, WIDTH, content, datasets, jobs, retries, size, text
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.trained import parameters
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from pipeline_lib.training.checkpoint import Checkpoints
from tests.config.test_plan import changed, plan
from tests.conftest import RUNTIME, tiny_run
from tests.workflow.conftest import ROOT

CONFIGS = [ROOT / "config.yaml", *(p for p in sorted((ROOT / "configs").glob("*.yaml")) if "base" not in p.name)]
FOLDER = {"recipe": {"name": "image-folder", "path": "nowhere", "resolution": 16}}
OWN = """
from pipeline_lib.config.base import Model

class Options(Model):
    pass

def prepare(options, folder):
    raise NotImplementedError
"""


def test_counts_by_hand() -> None:
    """One training on 1,797 digits of 8x8; 100 images at 20 and at 100 calls; 1000 chains, each kept at 20 places."""
    one = plan(changed("datasets/digits/holdout", 97))
    (found,) = datasets(one)
    count = parameters(one.instances[0].run, (1, 8, 8))
    assert (found.trainings, found.cells, found.parameters) == (1, 2, [count])
    assert found.source["count"] == 1797
    assert (found.source["prepared"], found.source["preparing"]) == (1797 * 64, 2 * 1797 * 64)
    assert (found.weights, found.checkpoints) == (4 * count, 3 * 16 * count)
    assert found.samples == 2 * 100 * 64
    assert found.chains == 2 * 1000 * 20 * 64 * 4
    assert found.features == 2 * 97 * (64 + 2048) * 4
    assert found.snapshots == 0


def test_averages_and_snapshots_by_hand() -> None:
    """Three snapshots and two averages beside the main one; snapshots are scored at one number of calls."""
    kept = {"snapshots": [0.1, 0.2, 0.5], "averages": {"short": {"decay": 0.5}, "raw": {"decay": 0}}}
    values = changed("methods/ddpm/run", {"training": kept})
    one = plan({**values, "progress": {"images": 30}, "scores": {"extractors": ["clip-vit-b-32"]}})
    (found,) = datasets(one)
    count = parameters(one.instances[0].run, (1, 8, 8))
    assert (found.weights, found.checkpoints) == ((3 + 3) * 4 * count, 3 * (16 + 2 * 4) * count)
    assert found.snapshots == 3 * 30 * 64
    assert found.features == (2 * 100 + 3 * 30) * (64 + 2048 + 512) * 4
    assert found.scratch == (found.chains or 0) + found.features + found.snapshots
    assert jobs(one)["progress"] == 1


@pytest.mark.parametrize(
    ("recipe", "network", "gpus"),
    [
        ("digits", None, 0),
        ("digits", "resnet", 1),
        ({"name": "cifar10"}, None, 1),
        ({"name": "cifar10"}, "small", 0),
        (FOLDER["recipe"], None, 0),
        ({**FOLDER["recipe"], "resolution": 32}, None, 1),
        ("mine.py", None, 1),
    ],
)
def test_a_residual_classifier_asks_for_a_gpu(recipe: Any, network: str | None, gpus: int) -> None:
    """And one for images of a size that is not known yet."""
    Path("mine.py").write_text(OWN)
    values = {**changed("datasets/digits/recipe", recipe), "scores": {"classifier": {"network": network}}}
    assert plan(values).classifier_gpus(SimpleNamespace(dataset="digits")) == gpus


@pytest.mark.parametrize(("times", "places"), [(2, 2 + 2), (50, 21 + 50), (500, 21 + 101), ("every", 0)])
def test_chains_are_kept_where_the_errors_measure(times: Any, places: int) -> None:
    """Those of 20 calls at no more than 21 places; a measurement at every t keeps none."""
    (found,) = datasets(plan(changed("errors", {"chains": 10, "times": times})))
    assert found.chains == 10 * places * 64 * 4
    if times != "every":
        assert places == sum(len(measured(steps, times)) for steps in (20, 100))


def test_equal_trainings_count_once_and_are_jobs_each() -> None:
    values = changed("methods/twin", {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}})
    values["methods"]["ddpm"]["variants"]["wide"] = {"run": {"network": {"channels": 64}}}
    one = plan(values)
    assert (datasets(one)[0].trainings, jobs(one)["train"]) == (2, 3)
    assert len(datasets(one)[0].parameters or []) == 2
    said = " ".join(text(one).split())
    assert "1 of the 3 train jobs only point to a training" in said
    assert "only point to" not in text(plan(changed("seeds", [0])))


def test_equal_runs_of_two_datasets_are_two_trainings() -> None:
    one = plan(changed("datasets/again", {"recipe": "digits", "holdout": 10, "run": {"training": {"batch_size": 64}}}))
    assert [found.trainings for found in datasets(one)] == [1, 1]
    assert "only point to" not in text(one)


def test_the_plan_as_json_has_what_its_table_has() -> None:
    values = changed("datasets/more", {"recipe": {"name": "cifar10"}})
    values["runtime"] = {"train_minutes": 720, "train_hours": 120}
    one = plan(values)
    told = json.loads(json.dumps(content(one)))
    assert [found["name"] for found in told["datasets"]] == ["digits", "more"]
    for found, needs in zip(told["datasets"], datasets(one), strict=True):
        assert (found["scratch"], found["parameters"]) == (needs.scratch, needs.parameters)
        assert found["source"]["preparing"] == needs.source["preparing"]
    assert told["all"]["weights"] == sum(found["weights"] for found in told["datasets"])
    disk, of = told["all"]["disk"], told["datasets"]
    assert disk["checkpoints"] == max(found["checkpoints"] for found in of) > 0
    assert disk["scratch"] == sum(found[k] for found in of for k in ("chains", "features", "snapshots"))
    assert disk["all"] == sum(disk[k] for k in ("download", "unpacked", "kept", "checkpoints", "scratch"))
    assert told["training"]["retries"] == retries(one)
    assert told["training"]["hours"] == []
    assert told["jobs"] == jobs(one)
    said = " ".join(text(one).split())
    disk = told["all"]["disk"]
    assert f"{size(disk['download'])} to download ({size(disk['unpacked'])} unpacked), {size(disk['kept'])} of" in said


def test_the_command_prints_json_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_lib", "plan", str(ROOT / "config.yaml"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["experiment"], told["training"]["runs"], told["jobs"]["train"]) == ("quickstart", 6, 6)
    assert "why" not in told


def test_all_disk_is_said_once_with_files_that_are_shared() -> None:
    """Two readings of the same published files are downloaded once, and each is prepared."""
    values = changed("datasets/again", {"recipe": "digits", "holdout": 10})
    values["datasets"]["more"] = {"recipe": {"name": "cifar10"}}
    values["datasets"]["grey"] = {"recipe": {"name": "cifar10"}, "holdout": 5}
    one = plan(values)
    digits, again, more, grey = datasets(one)
    kept = [n for d in (digits, again, more, grey) for n in (d.source["prepared"], d.weights, d.samples)]
    shared = size(more.source["download"] + digits.source["download"])
    said = " ".join(text(one).split())
    assert f"In all: {shared} to download" in said
    assert f"{size(sum(kept))} of arrays, weights and samples" in said


def test_equal_samples_count_once_and_those_of_another_sampling_too() -> None:
    """A twin that is sampled as the first, and again with other noise: what both have is drawn once."""
    values = changed("methods/twin", {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}})
    first = next(iter(values["sampling"].values()))
    values["sampling"] |= {"again": {**first, "methods": ["twin"]}, "new": {**first, "methods": ["twin"], "seed": 1}}
    (found,) = datasets(plan(values))
    assert (found.trainings, found.cells) == (1, 2 * len(first["nfe"]))


def test_a_checkpoint_has_sixteen_bytes_a_parameter(
    tiny_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[dict[str, Any]] = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state, *more: (kept.append(state), save(self, state, *more))[1]
    )
    train.run(tiny_run(), {**RUNTIME, "checkpoint_minutes": 1e-9}, tmp_path / "manifest.json", tiny_data)
    count = Manifest.load(tmp_path / "manifest.json").facts["parameters"]
    assert tensor_bytes(kept[-1]) == pytest.approx(STATE * count, rel=0.03)  # Adam counts its steps for each tensor


def tensor_bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(tensor_bytes, inner))


def test_what_is_not_known_is_named_as_unknown() -> None:
    """A folder of images that is not there has no count, but its images will have the shape that was asked for."""
    one = plan(changed("datasets/digits", FOLDER))
    (found,) = datasets(one)
    assert (found.source, found.samples) == ({}, 2 * 100 * 3 * 16 * 16)
    shown = text(one)
    (row, _) = [line.split() for line in shown.splitlines() if line.startswith("digits ")]
    assert row[1:] == ["unknown"] * 6
    assert "the folder nowhere does not exist" in shown


def test_a_folder_that_is_there_is_counted() -> None:
    Path("nowhere").mkdir()
    Image.new("RGB", (20, 16)).save("nowhere/one.png")
    (found,) = datasets(plan(changed("datasets/digits", FOLDER)))
    assert (found.source["count"], found.source["known"], found.why) == (1, "counted", "")


def test_a_recipe_that_does_not_say_its_size_leaves_all_sizes_unknown() -> None:
    Path("mine.py").write_text(OWN)
    one = plan(changed("datasets/digits/recipe", "mine.py"))
    (found,) = datasets(one)
    assert (found.trainings, found.cells) == (1, 2)
    assert {found.parameters, found.weights, found.checkpoints, found.samples, found.chains} == {None}
    assert "the recipe mine.py does not say how large it is" in text(one)
    assert [line.split().count("unknown") for line in text(one).splitlines() if line.startswith("all")] == [3]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_it_fits_in_the_terminal(path: Path) -> None:
    assert max(map(len, text(load(path)).splitlines())) <= WIDTH


def test_the_name_of_the_file_stays_whole() -> None:
    assert "configs/cross-digits.yaml)" in text(load(ROOT / "configs/cross-digits.yaml"))


def test_a_long_name_of_a_dataset_is_cut() -> None:
    values = changed("datasets", {"d" * 64: FOLDER})
    assert max(map(len, text(plan(values)).splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_700, "1.00 MB"), (153_600_000, "154 MB"), (18e9, "18.0 GB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(int(count)) == shown


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pipeline_lib.__main__ import main; status = main(sys.argv[1:]);"
        "sys.exit('torch was imported' if 'torch' in sys.modules else status)"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_page_of_all_keys_needs_no_torch() -> None:
    done = command("reference-page")
    assert (done.returncode, "# Configuration" in done.stdout) == (0, True), done.stderr


def test_the_plan_writes_nothing(tmp_path: Path) -> None:
    done = command("plan", str(ROOT / "configs/paper.yaml"))
    assert "trainings" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_fit_the_data_is_named_before_anything_runs() -> None:
    with pytest.raises(BadConfig, match=r"attention_resolutions \[5\] never occur"):
        datasets(plan(changed("base/network/attention_resolutions", [5])))


def test_a_bad_configuration_is_one_sentence() -> None:
    Path("config.yaml").write_text("experiment: mine\nseed: [0]\n")
    done = command("plan")
    assert done.returncode == 78
    assert done.stderr.strip().endswith("error: unknown key 'seed'; did you mean 'seeds'?")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("hours", "jobs_needed"), [(0.1, 1), (11.95, 1), (11.96, 2), (120, 11)])
def test_retries_are_the_jobs_that_a_training_takes(hours: float, jobs_needed: int) -> None:
    """A job of 12 hours trains for 3 minutes less; the first one is no retry."""
    one = plan(changed("runtime", {"train_minutes": 720, "train_hours": hours}))
    assert retries(one) == jobs_needed - 1 + SPARE
    assert f"retries: {jobs_needed - 1 + SPARE} in the profile" in text(one)


def test_retries_are_unknown_where_the_hours_are() -> None:
    assert retries(plan(changed("runtime", {"train_minutes": 720}))) is None
