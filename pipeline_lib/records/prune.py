"""Stored results that no manifest of any experiment names: what changed configurations and killed jobs left behind."""

import shutil
from pathlib import Path

from pipeline_lib.records.store import STORE, Manifest, busy


def orphans(results: Path = Path("results")) -> list[Path]:
    """Finished folders of the store that no manifest outside it points to, and what killed data jobs left.

    Other unfinished ones stay: a training between two attempts has no manifest either, and its checkpoint is worth
    hours.
    Raises BadData where a manifest cannot be read, since what it names would seem to be an orphan.
    """
    manifests = [p for p in results.glob("*/**/manifest.json") if STORE not in p.parents]
    named = {Path(Manifest.load(p).folder).name for p in manifests}
    folders = sorted(p for p in STORE.glob("*-*") if (p / "identity.json").is_file())
    return [p for p in folders if p.name not in named] + abandoned()


def abandoned() -> list[Path]:
    """Half-prepared datasets, `.<name>.part`, of jobs that no longer run: the next attempt would begin anew."""
    parts = sorted(STORE.glob(".*.part"))
    return [p for p in parts if not busy(STORE / p.name.removeprefix(".").removesuffix(".part"))]


def size(folder: Path) -> int:
    """Bytes in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def run(delete: bool) -> int:
    """List the orphans with their sizes, and remove them if asked; returns 0."""
    found = orphans()
    for folder in found:
        print(f"{size(folder) / 2**20:10.1f} MB  {folder}")
        if delete:
            shutil.rmtree(folder)
    print(f"{len(found)} removed." if delete else f"{len(found)} could go; prune --delete removes them.")
    return 0
