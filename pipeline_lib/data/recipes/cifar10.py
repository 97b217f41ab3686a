"""CIFAR-10 from its published Python archive, downloaded if asked for, or from the folder that was unpacked from it."""

import contextlib
import hashlib
import io
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.exits import BadData

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
COUNTS = {"train": 50_000, "test": 10_000}
# The archive's MD5 stands on the publisher's page; those of its files are torchvision's.
MD5 = {
    ARCHIVE: "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


class Options(Model):
    """Which images, and where they come from."""

    path: str = Field(
        "data",
        description=f"folder that holds {ARCHIVE} or {FOLDER} or will hold the archive, or one of the two",
    )
    split: Literal["train", "test"] = Field("train", description="50,000 training or 10,000 test images")
    download: bool = Field(False, description=f"get the archive (170 MB) from {URL} if it is not there")


def official(options: Options) -> Official:
    """As published."""
    return Official(COUNTS[options.split], (3, 32, 32), 170_498_071, 170_498_071, "published")


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,32,32) in the order of the batches and labels 0..9; every file must have its published MD5.

    Raises BadData, and TryAgain where a download is cut.
    """
    import numpy as np

    from pipeline_lib.data.arrays import appending
    from pipeline_lib.data.images import duplicates, hash_rows

    labels: list[int] = []
    hashes: list[bytes] = []
    with _opener(options) as read, appending(folder / "images.npy", (3, 32, 32), np.uint8) as append:
        for name in BATCHES[options.split]:
            batch = read(name)
            rows = np.ascontiguousarray(batch["data"]).reshape(-1, 3, 32, 32)
            append(rows)
            labels += batch["labels"]
            hashes += hash_rows(rows)
        classes = read("batches.meta")["label_names"]
    notes = {
        "source": f"{URL}, MD5 of every file compared",
        "split": options.split,
        "licence": "none stated; collected from the web for research (A. Krizhevsky, 2009)",
        "size": "32x32 as published",
        "duplicates": duplicates(hashes),
    }
    return Source(folder / "images.npy", np.array(labels, np.int64), list(classes), notes)


@contextlib.contextmanager
def _opener(options: Options) -> Any:
    """A function that reads a batch by name, from the folder or straight from the archive."""
    from pipeline_lib.data.download import check, fetch

    path = Path(options.path).expanduser()
    root = path.parent if path.name in (ARCHIVE, FOLDER) else path
    if (root / FOLDER).is_dir():
        yield lambda name: _read(root / FOLDER / name)
        return
    if not (root / ARCHIVE).is_file() and not options.download:
        raise BadData(f"{root} holds neither {FOLDER} nor {ARCHIVE}; put one there, or set 'download: true'.")
    archive = fetch(URL, root / ARCHIVE, MD5[ARCHIVE]) if options.download else check(root / ARCHIVE, MD5[ARCHIVE])
    with tarfile.open(archive) as tar:
        yield lambda name: _read(archive / FOLDER / name, tar.extractfile(f"{FOLDER}/{name}"))


def _read(path: Path, stream: IO[bytes] | None = None) -> dict[str, Any]:
    from pipeline_lib.data.batches import unpickle

    try:
        data = stream.read() if stream else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path} cannot be read ({error}); unpack {ARCHIVE} again.") from None
    if hashlib.md5(data).hexdigest() != MD5[path.name]:
        raise BadData(f"{path} is cut short or not the published file (its MD5 differs); unpack {ARCHIVE} again.")
    return unpickle(io.BytesIO(data), path)
