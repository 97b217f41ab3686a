"""Stored results that no manifest of any experiment names: what changed configurations left behind."""

import json
import shutil
from pathlib import Path

from pipeline_lib.records.store import STORE


def orphans(results: Path = Path("results")) -> list[Path]:
    """Folders of the store that no manifest outside it points to, and that no job is working in."""
    manifests = [p for p in results.glob("*/**/manifest.json") if STORE not in p.parents]
    named = {Path(json.loads(p.read_text())["folder"]).name for p in manifests}
    folders = sorted(p for p in STORE.glob("*-*") if p.is_dir())
    return [p for p in folders if p.name not in named and not (p / "lease.json").exists()]


def size(folder: Path) -> int:
    """Bytes in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def run(delete: bool) -> int:
    """List the orphans with their sizes, and remove them if asked; returns 0."""
    found = orphans()
    for folder in found:
        unfinished = "" if (folder / "manifest.json").exists() else ", unfinished"
        print(f"{size(folder) / 2**20:10.1f} MB  {folder}{unfinished}")
        if delete:
            shutil.rmtree(folder)
    print(f"{len(found)} removed." if delete else f"{len(found)} could go; prune --delete removes them.")
    return 0
