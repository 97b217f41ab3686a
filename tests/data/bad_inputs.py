"""Everything that can be wrong with a dataset, and what is said about it."""

import contextlib
import errno
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import lmdb
import numpy as np
from PIL import Image

from pipeline_lib.config.base import part
from pipeline_lib.data import prepare
from pipeline_lib.data.recipes import _faces, cifar10
from pipeline_lib.exits import PipelineError
from tests.data import datasets
from tests.data.pictures import picture, put, put_rgb16, put_truncated

OUTPUT = Path("results/e/d/data/manifest.json")
DATA = Path("data")


@dataclass(frozen=True)
class Case:
    """Something bad: what it is, how to make it, the recipe that meets it, the exit code."""

    what: str
    make: Callable[[], Any]
    recipe: str = "image-folder"
    options: dict[str, Any] = field(default_factory=dict)
    code: int = 65
    holdout: int = 0

    def config(self) -> dict[str, Any]:
        """The stage configuration."""
        defaults: dict[str, Any] = {"resolution": 12} if self.recipe == "image-folder" else {}
        if self.recipe not in ("image-folder", "cifar10"):
            defaults = {"expected": None}
        options = {"name": self.recipe, "path": "data", **defaults, **self.options}
        return {"recipe": part("data/recipes", options, "recipe"), "holdout": self.holdout}


def _among_forty(make: Callable[[Path], Any]) -> None:
    for seed in range(39):
        put(DATA / "cat" / f"{seed:02d}.png", picture(seed=seed))
    make(DATA / "cat" / "17b.jpg")


def _one(name: str, image: Image.Image) -> Callable[[], Any]:
    return lambda: put(DATA / name, image)


def _damage(make: Callable[[Path], Any], path: str, change: Callable[[bytes], bytes]) -> Callable[[], Any]:
    def run() -> None:
        make(DATA)
        file = DATA / path
        file.write_bytes(change(file.read_bytes()))

    return run


def _cifar10(change: Callable[[Path], Any]) -> Callable[[], Any]:
    """The published archive, with its MD5s known to the recipe, then changed; undone at the end of the case."""

    def run() -> Any:
        return mock.patch.object(cifar10, "MD5", datasets.cifar10(DATA)), change(DATA / cifar10.ARCHIVE)

    return run


def _full_disk() -> Any:
    put(DATA / "a.png")
    full = OSError(errno.ENOSPC, "No space left on device")
    return (mock.patch("os.posix_fallocate", side_effect=full, create=True),)


def _no_network() -> Any:
    return (mock.patch.object(cifar10, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz"),)


def _evil(root: Path) -> None:
    datasets.imagenet_batches(root, 32, "pickle")
    (root / "train_data_batch_4").write_bytes(pickle.dumps({"data": os.getcwd, "labels": []}))


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 4]) + data[5001:]


def _lsun_value() -> None:
    datasets.lsun(DATA)
    with lmdb.open("data/tower_train_lmdb") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0" * 40, b"no image")


def _celeba(change: Callable[[Path], Any]) -> Callable[[], Any]:
    return lambda: change(datasets.celeba(DATA))


def _ffhq_twice() -> None:
    datasets.ffhq(DATA)
    put(DATA / "thumbnails128x128" / "00600.png", picture(128, 128))


def _ffhq_changed() -> Any:
    md5 = datasets.ffhq_list(datasets.ffhq(DATA))
    put(DATA / "thumbnails128x128/00000/00600.png", picture(128, 128, seed=9))
    return (mock.patch.object(_faces, "LISTING_MD5", md5),)


def _deep_pixmap() -> None:
    DATA.mkdir()
    (DATA / "a.ppm").write_bytes(b"P6 12 12 65535\n" + bytes(12 * 12 * 6))


NPZ = "train_data_batch_7.npz"
PARTITION, FACE = "list_eval_partition.txt", "img_align_celeba/000003.jpg"

CASES = [
    Case("the folder is missing", lambda: None),
    Case("a file in its place", lambda: DATA.write_bytes(b"")),
    Case("an archive that was not unpacked", lambda: (DATA.mkdir(), (DATA / "train.zip").touch())),
    Case("a link to a folder around it", lambda: (put(DATA / "a.png"), (DATA / "more").symlink_to("."))),
    Case("more held out than there is", lambda: put(DATA / "a.png"), holdout=2, code=78),
    Case("no images in it", lambda: put(DATA / "a.png").rename(DATA / "a.txt")),
    Case("images beside class folders", lambda: (put(DATA / "a.png"), put(DATA / "cat" / "b.png"))),
    Case("splits, and no classes", lambda: (put(DATA / "train" / "a.png"), put(DATA / "test" / "b.png"))),
    Case("one truncated image among 40", lambda: _among_forty(put_truncated)),
    Case("one empty file among 40", lambda: _among_forty(lambda path: path.write_bytes(b""))),
    Case("a web page that was saved as an image", lambda: _among_forty(lambda path: path.write_text("<html>"))),
    Case("a link to nothing", lambda: _among_forty(lambda path: path.symlink_to("gone.jpg"))),
    Case("a small image", _one("a.png", picture(30, 11))),
    Case("an image of another size, and `resize: none`", _one("a.png", picture(30, 20)), options={"resize": "none"}),
    Case("grey of 16 bits", _one("a.png", Image.fromarray(np.full((12, 12), 4000, np.uint16)))),
    Case("colour of 16 bits", lambda: put_rgb16(DATA / "a.png")),
    Case("a pixmap of 16 bits", _deep_pixmap),
    Case("floating-point pixels", _one("a.tif", picture().convert("F"))),
    Case("the disk is full", _full_disk, code=75),
    Case("neither archive nor folder", lambda: None, "cifar10"),
    Case("no network", _no_network, "cifar10", {"download": True}),
    Case("a truncated archive", _cifar10(lambda path: path.write_bytes(_half(path.read_bytes()))), "cifar10"),
    Case("fewer images than published", lambda: datasets.celeba(DATA), "celeba64-ddim", {"expected": "official"}),
    Case("an image of another shape", _celeba(lambda root: put(root / FACE, picture(178, 219))), "celeba64-ddpmip"),
    Case("the partition file is missing", _celeba(lambda root: (root / PARTITION).unlink()), "celeba64-ddim"),
    Case(
        "the partition file is something else",
        _celeba(lambda root: (root / PARTITION).write_text("<html>\n")),
        "celeba64-ddim",
    ),
    Case("an image of the partition is missing", _celeba(lambda root: (root / FACE).unlink()), "celeba64-scoresde"),
    Case(
        "the partition lists an image twice",
        _celeba(lambda root: (root / PARTITION).write_text("000001.jpg 0\n000001.jpg 0\n")),
        "celeba64-ddim",
    ),
    Case("the other release", lambda: datasets.imagenet_png(DATA, 32), "imagenet32"),
    Case(
        "a batch is missing",
        lambda: datasets.imagenet_batches(DATA, 32, batches=8),
        "imagenet32",
        {"expected": "official"},
    ),
    Case("batches of another size", lambda: datasets.imagenet_batches(DATA, 32), "imagenet64"),
    Case("a truncated batch", _damage(lambda root: datasets.imagenet_batches(root, 32), NPZ, _half), "imagenet32"),
    Case(
        "a flipped bit in a batch", _damage(lambda root: datasets.imagenet_batches(root, 32), NPZ, _flip), "imagenet32"
    ),
    Case("a pickle that would run something", lambda: _evil(DATA), "imagenet32"),
    Case("images in no class folders", _one("train/a.JPEG", picture(200, 200)), "imagenet128"),
    Case("a truncated database", _damage(datasets.lsun, "tower_train_lmdb/data.mdb", _half), "lsun-tower64"),
    Case(
        "something else as a database",
        _damage(datasets.lsun, "tower_train_lmdb/data.mdb", lambda d: d[::-1]),
        "lsun-tower64",
    ),
    Case("a damaged value in a database", _lsun_value, "lsun-tower64"),
    Case("a file that differs from the publisher's list", _ffhq_changed, "ffhq128"),
    Case("a file number that comes twice", _ffhq_twice, "ffhq128"),
    Case("faces that are too small", _one("a.png", picture(200, 200)), "celebahq256"),
]


@contextlib.contextmanager
def made(case: Case) -> Any:
    """The bad input lies in the working directory, and what a case patches is patched."""
    patches = case.make()
    with contextlib.ExitStack() as stack:
        for patch in patches if isinstance(patches, tuple) else ():
            if hasattr(patch, "__enter__"):
                stack.enter_context(patch)
        yield


def sentence(case: Case) -> str:
    """What the data stage says in this working directory; words of libraries, which change, as an ellipsis."""
    with made(case):
        try:
            prepare.run(case.config(), {}, OUTPUT)
        except PipelineError as error:
            text = re.sub(r"(damaged|images|database|reached|short) \((?:[^()]|\([^()]*\))*\)", r"\1 (…)", str(error))
            return re.sub(r"/data-\w{16}", "/data-…", re.sub(r"MD5 \w{32}, not \w{32}", "MD5 …, not …", text))
    raise AssertionError(f"{case.what}: nothing was said")
