import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib import registry
from pipeline_lib.config.base import part
from pipeline_lib.data import prepare
from pipeline_lib.data.sizes import needs
from pipeline_lib.records.store import Manifest
from tests.data import datasets
from tests.data.pictures import put
from tests.workflow.conftest import ROOT


@pytest.mark.parametrize(
    ("recipe", "count", "side"),
    [
        ("cifar10", 50_000, 32),
        ("celeba64-ddim", 162_770, 64),
        ("celeba64-scoresde", 162_770, 64),
        ("celeba64-ddpmip", 202_599, 64),
        ("imagenet32", 1_281_167, 32),
        ("imagenet64", 1_281_167, 64),
        ("imagenet128", 1_281_167, 128),
        ("lsun-tower64", 708_264, 64),
        ("ffhq128", 70_000, 128),
        ("ffhq256", 70_000, 256),
        ("celebahq256", 30_000, 256),
    ],
)
def test_paper_scale_is_known_before_anything_is_there(recipe: str, count: int, side: int) -> None:
    found = needs({"name": recipe, "path": "nowhere"}, holdout=1000)
    assert found["prepared"] == count * 3 * side * side
    assert found["preparing"] == 2 * count * 3 * side * side
    assert 1e8 < int(found["download"]) <= int(found["source"]) < 2e11
    assert found["known"] in ("published", "memory")


def test_every_recipe_says_what_it_needs() -> None:
    put(Path("data/a.png"))
    options: dict[str, dict[str, object]] = {"digits": {}, "image-folder": {"path": "data", "resolution": 8}}
    for name in registry.names("data/recipes"):
        found = needs({"name": name, **options.get(name, {"path": "data"})})
        assert int(found["prepared"]) > 0, name


def test_what_was_said_is_what_it_takes() -> None:
    datasets.celeba(Path("data"))
    recipe = {"name": "celeba64-ddim", "path": "data", "expected": 4}
    prepare.run({"recipe": part("data/recipes", recipe, "recipe"), "holdout": 0}, {}, Path("out/manifest.json"))
    manifest = Manifest.load(Path("out/manifest.json"))
    array = np.load(manifest.file("train-images.npy"))
    assert array.nbytes == needs(recipe)["prepared"]
    notes = manifest.facts["notes"]
    assert {"source", "split", "licence", "size", "pixels", "decoder", "skipped", "duplicates"} <= set(notes)


def test_planning_needs_no_heavy_library() -> None:
    code = (
        "import sys; from pipeline_lib import registry; from pipeline_lib.data.sizes import needs;"
        "[registry.find('data/recipes', name) for name in registry.names('data/recipes')];"
        "needs({'name': 'imagenet64', 'path': 'x'});"
        "heavy = {'torch', 'torchvision', 'PIL', 'lmdb', 'sklearn'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
