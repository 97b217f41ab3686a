import errno
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib import registry
from pipeline_lib.__main__ import main
from pipeline_lib.config.base import part
from pipeline_lib.data import prepare
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.data.recipes import Source, cifar10, digits
from pipeline_lib.exits import BadConfig, Bug, TryAgain
from pipeline_lib.records.store import Entry, Manifest
from tests.conftest import write_config
from tests.data import datasets
from tests.data.pictures import picture, put, put_truncated

OUTPUT = Path("results/e/d/data/manifest.json")


def config(holdout: int = 0, name: str = "digits", **options: Any) -> dict[str, Any]:
    return {"recipe": part("data/recipes", {"name": name, **options}, "recipe"), "holdout": holdout}


def run(holdout: int = 0, name: str = "digits", output: Path = OUTPUT, **options: Any) -> Manifest:
    prepare.run(config(holdout, name, **options), {}, output)
    return Manifest.load(output)


def command(holdout: int = 0, name: str = "digits", **options: Any) -> int:
    path = write_config(OUTPUT.parent / "config.json", "data", config(holdout, name, **options))
    return main(["data", "--config", str(path), "--output", str(OUTPUT)])


def left_in_store() -> list[str]:
    return [p.name for p in Path("results/store").iterdir()] if Path("results/store").exists() else []


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = digits.prepare

    def prepare_and_count(options: digits.Options, folder: Path) -> Source:
        calls.append(1)
        return original(options, folder)

    monkeypatch.setattr(digits, "prepare", prepare_and_count)
    return calls


def test_digits_are_split_without_loss() -> None:
    data = Prepared(run(holdout=300))
    assert (data.images.shape, data.holdout().images.shape) == ((1497, 1, 8, 8), (300, 1, 8, 8))
    assert data.labels is not None
    assert data.holdout().labels is not None
    both = np.concatenate([data.images, data.holdout().images]).reshape(1797, -1)
    labels = np.concatenate([data.labels, data.holdout().labels])
    source = digits.prepare(digits.Options(), Path())
    assert source.labels is not None
    together = sorted(zip(map(bytes, both), labels.tolist(), strict=True))
    assert together == sorted(zip(map(bytes, np.load(source.images)), source.labels.tolist(), strict=True))


def test_the_manifest_tells_what_consumers_need() -> None:
    manifest = run(holdout=300)
    facts = manifest.facts
    assert {k: facts[k] for k in ("count", "holdout", "shape", "recipe")} == {
        "count": 1497,
        "holdout": 300,
        "shape": [1, 8, 8],
        "recipe": "digits",
    }
    assert facts["classes"][9] == "9"
    assert facts["notes"] == digits.NOTES
    assert sorted(manifest.files) == [f"{s}-{k}.npy" for s in ("holdout", "train") for k in ("images", "labels")]
    costs = json.loads((OUTPUT.parent / "costs.json").read_text())
    assert costs["images"] == 1797
    assert costs == json.loads((Path(manifest.folder) / "costs.json").read_text())
    assert sorted(p.name for p in Path(manifest.folder).iterdir()) == sorted(
        [*manifest.files, "manifest.json", "identity.json", "costs.json", "grid.png"]
    )
    assert Image.open(Path(manifest.folder) / "grid.png").size == (8 * 64 + 14, 8 * 64 + 14)


def test_nothing_held_out_makes_no_holdout_files() -> None:
    manifest = run()
    assert sorted(manifest.files) == ["train-images.npy", "train-labels.npy"]
    assert len(Prepared(manifest)) == manifest.facts["count"] == 1797


def test_images_without_labels_have_no_label_files() -> None:
    for seed in range(5):
        put(Path(f"images/{seed}.png"), picture(seed=seed))
    manifest = run(2, "image-folder", path="images", resolution=12)
    assert sorted(manifest.files) == ["holdout-images.npy", "train-images.npy"]
    assert Prepared(manifest).labels is None
    assert manifest.facts["classes"] == []


def test_a_second_run_recomputes_nothing_and_writes_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    run(holdout=10)
    first, costs = OUTPUT.read_bytes(), (OUTPUT.parent / "costs.json").read_bytes()
    run(holdout=10)
    assert (OUTPUT.read_bytes(), (OUTPUT.parent / "costs.json").read_bytes()) == (first, costs)
    assert len(calls) == 1
    run(holdout=11)
    assert len(calls) == 2


def test_a_lost_file_is_made_anew_with_the_same_content() -> None:
    manifest = run(holdout=10)
    before = OUTPUT.read_bytes()
    (Path(manifest.folder) / "train-images.npy").unlink()
    run(holdout=10)
    assert OUTPUT.read_bytes() == before
    assert len(Prepared(manifest).images) == 1787


def test_a_changed_source_is_another_dataset() -> None:
    put(Path("images/a.png"))
    first = run(0, "image-folder", path="images", resolution=12)
    put(Path("images/b.png"), picture(seed=1))
    second = run(0, "image-folder", path="images", resolution=12)
    assert (first.facts["count"], second.facts["count"]) == (1, 2)
    assert first.folder != second.folder


def test_a_users_own_recipe_is_known_by_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from pathlib import Path
import numpy as np
from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Source
class Options(Model):
    value: int = 7
def prepare(options, folder):
    np.save(folder / "images.npy", np.full((3, 1, 4, 4), options.value, np.uint8))
    return Source(folder / "images.npy", None, [])
"""
    Path("own.py").write_text(code)
    manifest = run(1, "own.py")
    assert (Prepared(manifest).images == 7).all()
    Path("own.py").write_text(code + "# changed\n")
    assert run(1, "own.py").fingerprint != manifest.fingerprint
    Path("bad.py").write_text(code.replace("np.uint8", "np.float32"))
    with pytest.raises(Bug, match=r"the recipe 'bad.py' made float32 \(3, 1, 4, 4\)"):
        run(1, "bad.py")
    assert not [name for name in left_in_store() if name.startswith(".")]


def test_the_holdout_is_a_plain_draw_and_always_the_same() -> None:
    held = prepare.draw_holdout(1000, 300)
    assert len(set(held.tolist())) == 300
    assert abs(held.mean() - 500) < 4 * (1000**2 / 12 * 0.7 / 300) ** 0.5
    assert abs(held[:50].mean() - 500) < 4 * (1000**2 / 12 / 50) ** 0.5  # any first n are a draw too
    np.testing.assert_array_equal(held, prepare.draw_holdout(1000, 300))
    assert prepare.draw_holdout(10, 0).shape == (0,)


def test_a_holdout_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BadConfig, match="'holdout' is 1797, but the dataset has 1797 images"):
        run(holdout=1797)
    assert left_in_store() == []
    assert command(holdout=2000) == 78


def test_a_holdout_that_leaves_nothing_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    assert command(holdout=1796) == 78
    assert calls == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: None, "the folder images does not exist"),
        (lambda: Path("images").mkdir(), "there are no images in images"),
        (lambda: put_truncated(Path("images/a.jpg")), "the first is images/a.jpg: it is damaged"),
        (lambda: put(Path("images/a.png"), picture(5, 9)), "it is 5x9 pixels and its short side must have at least 12"),
    ],
)
def test_bad_sources_end_with_65_one_sentence_and_nothing_in_the_store(
    make: Callable[[], Any], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    make()
    assert command(0, "image-folder", path="images", resolution=12) == 65
    assert sentence in caplog.text
    assert "Traceback" not in caplog.text
    assert left_in_store() == []
    assert not OUTPUT.exists()


def test_a_full_disk_asks_to_try_again_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "copy_rows", full)
        assert command(holdout=10) == 75
    assert left_in_store() == []
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "finish", lambda *_: (_ for _ in ()).throw(TryAgain("the disk is full")))
        assert command(holdout=10) == 75
    assert left_in_store() == []
    assert command(holdout=10) == 0


def test_what_a_killed_job_left_is_cleared_away() -> None:
    manifest = run(holdout=10)
    folder = Path(manifest.folder)
    before = OUTPUT.read_bytes()
    part_folder = folder.rename(folder.parent / f".{folder.name}.part")
    (part_folder / "junk-images.npy").touch()
    run(holdout=10)
    assert left_in_store() == [folder.name]
    assert OUTPUT.read_bytes() == before


def test_two_jobs_at_once_prepare_one_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    outputs = [Path(f"results/e{i}/d/data/manifest.json") for i in range(3)]
    jobs = [threading.Thread(target=run, kwargs={"holdout": 10, "output": o}) for o in outputs]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(calls) == 1
    assert len({o.read_bytes() for o in outputs}) == 1


MADE: dict[str, Callable[[Path], Any]] = {
    "image-folder": lambda root: put(root / "cat" / "a.png"),
    "celeba64-ddim": datasets.celeba,
    "celeba64-scoresde": datasets.celeba,
    "celeba64-ddpmip": datasets.celeba,
    "imagenet32": lambda root: datasets.imagenet_batches(root, 32),
    "imagenet64": lambda root: datasets.imagenet_batches(root, 64),
    "imagenet128": datasets.imagenet_tree,
    "lsun-tower64": datasets.lsun,
    "ffhq128": datasets.ffhq,
    "ffhq256": lambda root: datasets.ffhq(root, 1024),
    "celebahq256": lambda root: put(root / "0.jpg", picture(256, 256)),
}


@pytest.mark.parametrize("name", registry.names("data/recipes"))
def test_every_recipe_records_what_a_reader_asks_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "cifar10":
        monkeypatch.setattr(cifar10, "MD5", datasets.cifar10(Path("data")))
    elif name != "digits":
        MADE[name](Path("data"))
    path = {} if name == "digits" else {"path": "data"}
    more = {"image-folder": {"resolution": 12}, "cifar10": {}, "digits": {}}.get(name, {"expected": None})
    manifest = run(0, name, **path, **more)
    images = np.load(Path(manifest.folder) / "train-images.npy")
    assert list(images.shape) == [manifest.facts["count"], *manifest.facts["shape"]]
    assert (
        hashlib.sha256((Path(manifest.folder) / "train-images.npy").read_bytes()).hexdigest()
        == (manifest.files["train-images.npy"])
    )
    assert manifest.facts["recipe"] == name
    notes = manifest.facts["notes"]
    assert {"source", "split", "licence", "size", "duplicates"} <= set(notes)
    if name not in ("cifar10", "digits", "imagenet32", "imagenet64"):  # which have no encoded images
        assert {"pixels", "decoder", "orientation", "pixel_formats", "skipped"} <= set(notes)
