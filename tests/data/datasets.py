"""Tiny datasets in the formats in which the real ones are published."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
from PIL import Image

from tests.data.pictures import picture, put

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ATTRIBUTES = ["5_o_Clock_Shadow", "Male", "Smiling"]


class Python2(pickle._Pickler):
    """Writes text and bytes as the strings of Python 2, in which CIFAR-10 is published."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def _string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _string


def python2(content: Any) -> bytes:
    """A pickle as Python 2 and numpy 1 wrote it."""
    stream = io.BytesIO()
    Python2(stream, 2).dump(content)
    return stream.getvalue().replace(b"numpy._core", b"numpy.core")


def pixels(count: int, side: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, 3 * side * side), the planes one after another."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3 * side * side), dtype=np.uint8)


def cifar10(root: Path, count: int = 3) -> dict[str, str]:
    """cifar-10-python.tar.gz with `count` images a batch; returns the MD5s of the archive and its files."""
    md5, root = {}, Path(root)
    root.mkdir(parents=True, exist_ok=True)
    batches = {f"data_batch_{i}": f"training batch {i} of 5" for i in range(1, 6)} | {
        "test_batch": "testing batch 1 of 1"
    }
    contents: dict[str, dict[str, Any]] = {
        name: {
            "batch_label": label,
            "labels": [(3 * seed + i) % 10 for i in range(count)],
            "data": pixels(count, 32, seed),
            "filenames": [f"{name}_{i}.png" for i in range(count)],
        }
        for seed, (name, label) in enumerate(batches.items())
    }
    contents["batches.meta"] = {"num_cases_per_batch": count, "label_names": CLASSES, "num_vis": 3072}
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, content in contents.items():
            data = python2(content)
            md5[name] = hashlib.md5(data).hexdigest()
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return md5 | {"cifar-10-python.tar.gz": hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest()}


def celeba(root: Path, count: int = 6) -> Path:
    """Aligned JPEGs of 178x218 with the partition (4 of 6 to train), attributes and identities as published."""
    names = [f"{i:06d}.jpg" for i in range(1, count + 1)]
    for i, name in enumerate(names):
        put(root / "img_align_celeba" / name, picture(178, 218, seed=i), quality=95)
    partition = ["0", "1", "0", "2", "0", "0"]
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {partition[i % 6]}\n" for i, n in enumerate(names)))
    rows = [f"{n} " + " ".join(f"{1 if (i + j) % 2 else -1:2d}" for j in range(3)) + "\n" for i, n in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text(f"{count}\n{' '.join(ATTRIBUTES)} \n{''.join(rows)}")
    (root / "identity_CelebA.txt").write_text("".join(f"{n} {2880 + i}\n" for i, n in enumerate(names)))
    return root


def imagenet_batches(root: Path, side: int, kind: str = "npz", count: int = 4, batches: int = 10) -> Path:
    """The new release of downsampled ImageNet: npz batches or pickles, and val_data."""
    root.mkdir(parents=True, exist_ok=True)
    names = [*(f"train_data_batch_{i}" for i in range(1, batches + 1)), "val_data"]
    for seed, name in enumerate(names):
        data = pixels(count, side, seed)
        labels = [1 + (seed * 131 + 7 * i) % 1000 for i in range(count)]
        if kind == "npz":
            np.savez(root / f"{name}.npz", data=data, labels=np.array(labels), mean=data.mean(0))
        else:
            (root / name).write_bytes(pickle.dumps({"data": data, "labels": labels, "mean": data.mean(0)}))
    return root


def imagenet_png(root: Path, side: int, count: int = 4) -> Path:
    """The old release of downsampled ImageNet: PNG files in one folder a split."""
    for split in ("train", "valid"):
        for i in range(count):
            put(root / f"{split}_{side}x{side}" / f"{i:07d}.png", picture(side, side, seed=i))
    return root


def imagenet_tree(root: Path) -> Path:
    """ILSVRC 2012: a folder a class, JPEGs of any size, one of them CMYK and one grey."""
    for c, wnid in enumerate(("n01440764", "n01443537")):
        for i, size in enumerate([(512, 512), (300, 200), (100, 150)]):
            image = picture(*size, seed=10 * c + i)
            put(root / "train" / wnid / f"{wnid}_{i}.JPEG", image, format="JPEG", quality=95)
    put(root / "train" / "n01443537" / "n01443537_8.JPEG", picture(200, 140).convert("CMYK"), format="JPEG")
    put(root / "train" / "n01443537" / "n01443537_9.JPEG", picture(200, 140).convert("L"), format="JPEG")
    return root


def lsun(root: Path, count: int = 5, split: str = "train") -> dict[str, bytes]:
    """tower_train_lmdb: keys are SHA-1 sums in hex, values encoded images whose short side is 256."""
    values = {}
    for seed in range(count):
        stream = io.BytesIO()
        picture(*((256, 384) if seed % 2 else (340, 256)), seed=seed).save(
            stream, "JPEG" if seed else "WEBP", quality=75
        )
        values[hashlib.sha1(stream.getvalue()).hexdigest()] = stream.getvalue()
    folder = root / f"tower_{split}_lmdb"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return dict(sorted(values.items()))


def ffhq(root: Path, side: int = 128, count: int = 4) -> Path:
    """Numbered PNG files in folders of a thousand."""
    name = {128: "thumbnails128x128", 1024: "images1024x1024"}[side]
    for i in range(count):
        number = 600 * i
        put(root / name / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png", picture(side, side, seed=i))
    return root


def ffhq_list(root: Path) -> str:
    """ffhq-dataset-v2.json for the images that are there, in the layout of the publisher; returns its MD5."""
    entries: dict[str, Any] = {}
    for kind, folder in (("image", "images1024x1024"), ("thumbnail", "thumbnails128x128")):
        for i, path in enumerate(sorted((root / folder).rglob("*.png"))):
            file = {"file_path": str(path.relative_to(root)), "file_md5": hashlib.md5(path.read_bytes()).hexdigest()}
            entries.setdefault(str(i), {"category": "training", "metadata": {"license": "x"}})
            entries[str(i)][kind] = {"file_url": "x", **file, "pixel_md5": "0" * 32, "face_landmarks": [[1.5, 2.5]]}
            entries[str(i)]["in_the_wild"] = {"file_path": f"in-the-wild-images/{path.name}", "file_md5": "1" * 32}
    listing = root / "ffhq-dataset-v2.json"
    listing.write_text(json.dumps(entries))
    return hashlib.md5(listing.read_bytes()).hexdigest()


def opened(path: Path) -> np.ndarray:
    """Pixels (H,W,3) of a file as Pillow decodes it."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
