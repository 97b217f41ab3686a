"""How fast datasets are prepared, beside a plain loop over Pillow in the same process.

`python -m tests.data.speed` draws its own files; `python -m tests.data.speed FOLDER` takes the JPEG files below FOLDER.
Loop and recipe take turns, and each ratio is that of neighbours in time. On a busy machine wall times say little; `at
most` is what the processor time of both would give on free cores: cores * loop / recipe.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline_lib.data.decode import Geometry
from pipeline_lib.data.images import Files, decode_all
from pipeline_lib.data.pool import cores
from pipeline_lib.data.recipes import celeba64_ddim, imagenet32
from tests.data.pictures import put


def drawn(root: Path, count: int, size: tuple[int, int]) -> Path:
    """`count` JPEGs (quality 90) of `size` whose content is as hard to decode as a photograph's: smooth, with noise."""
    random = np.random.default_rng(0)
    width, height = size
    for i in range(count):
        base = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noisy = np.asarray(base, np.int16) + random.integers(-12, 13, (height, width, 1))
        put(
            root / f"{i // 1000:03d}" / f"{i:06d}.jpg", Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), quality=90
        )
    return root


def plain_loop(root: Path, names: list[str], geometry: Geometry) -> None:
    """What one would write without this package: open, convert, crop, resize, put into one array."""
    side = geometry.resolution
    out = np.empty((len(names), side, side, 3), np.uint8)
    for i, name in enumerate(names):
        with Image.open(root / name) as image:
            rgb = image.convert("RGB")
            if geometry.crop:
                rgb = rgb.crop(geometry.crop)
            out[i] = np.asarray(
                rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR)
            )


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and processor time of a call, of its child processes too."""
    before, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def compare(label: str, root: Path, geometry: Geometry, turns: int) -> None:
    """Print images a second of loop and recipe in every turn, and the medians of their ratios."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
    ratios, possible = [], []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "images.npy"
        for _ in range(turns):
            loop, loop_cpu = seconds(lambda: plain_loop(root, names, geometry))
            ours, our_cpu = seconds(lambda: decode_all(Files(str(root)), names, geometry, target))
            ratios.append(loop / ours)
            possible.append(cores() * loop_cpu / our_cpu)
            print(f"{label}: loop {len(names) / loop:,.0f}/s, recipe {len(names) / ours:,.0f}/s, {ratios[-1]:.2f}x")
    middle, most = statistics.median(ratios), statistics.median(possible)
    print(f"{label}: {len(names):,} files, {cores()} cores: median {middle:.2f}x, at most {most:.2f}x")


def read_npz(folder: Path, side: int, count: int) -> None:
    """Print the images a second of ImageNet's batches, whose writing is part of it."""
    random = np.random.default_rng(0)
    for i in range(1, 11):
        data = random.integers(0, 256, (count // 10, 3 * side * side), dtype=np.uint8)
        np.savez(folder / f"train_data_batch_{i}.npz", data=data, labels=random.integers(1, 1001, count // 10))
    options = imagenet32.Options(path=str(folder), expected=count)
    took, _ = seconds(lambda: imagenet32.prepare_release(options, folder, side))
    print(f"npz {side}x{side}: {count:,} images, {count / took:,.0f}/s")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="JPEG files of 32x32; without it, drawn ones")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        small = arguments.folder or drawn(Path(scratch) / "small", 20_000, (32, 32))
        if not list(small.rglob("*.jp*g")):
            parser.error(f"there is no JPEG file below {small}")
        compare("JPEG 32x32", small, Geometry(32, resize="none"), arguments.turns)
        large = drawn(Path(scratch) / "large", 3_000, (178, 218))
        compare("JPEG 178x218, celeba64-ddim", large, celeba64_ddim.geometry(), arguments.turns)
        for side, count in ((32, 200_000), (64, 50_000)):
            read_npz(Path(scratch), side, count)


if __name__ == "__main__":
    main()
