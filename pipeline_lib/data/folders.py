"""Folders of image files: what is in them, in which order, and a hash that sees changes."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline_lib.exits import BadData

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".7z", ".rar")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def names_below(root: Path) -> list[str]:
    """Paths of all images relative to `root`, in no order; raises BadData where there are none."""
    names = [name for name, _ in _walk(str(root))]
    if not names:
        packed = next((path.name for path in sorted(root.iterdir()) if path.name.lower().endswith(ARCHIVES)), None)
        cure = f"unpack {packed}" if packed else f"it must hold files that end in {', '.join(SUFFIXES)}"
        raise BadData(f"there are no images in {root}; {cure}.")
    return names


def existing(root: Path, cure: str) -> Path:
    """`root`, if it is a folder; raises BadData where it is something else or missing, with the `cure` for that."""
    if root.exists() and not root.is_dir():
        raise BadData(f"{root} is a file and must be a folder; unpack it if it is an archive, and correct 'path'.")
    if not root.is_dir():
        raise BadData(f"the folder {root} does not exist; {cure}.")
    return root


def by_class(root: Path) -> list[str]:
    """Paths of all images relative to `root`, ordered by class and name; raises BadData for an unclear layout."""
    names = sorted(names_below(root), key=lambda name: (class_of(name), name))
    if "/" in names[-1] and "/" not in names[0]:
        raise BadData(
            f"{root} holds images directly ({names[0]}) and in folders ({names[-1]}); put all of them into class "
            "folders, or none."
        )
    return names


def by_stem(root: Path) -> list[str]:
    """Paths of all images relative to `root`, ordered by file name without suffix, whatever folder they lie in.

    Shorter names come first, so that numbers are in their order with leading zeros and without. Raises BadData where
    two have the same name.
    """
    names = sorted(names_below(root), key=lambda name: (len(Path(name).stem), Path(name).stem, name))
    for first, second in itertools.pairwise(names):
        if Path(first).stem == Path(second).stem:
            raise BadData(f"{root} holds the same image twice ({first} and {second}); remove one of them.")
    return names


def class_of(name: str) -> str:
    """The first folder of a relative path; empty for a file that lies directly in the root."""
    first, slash, _ = name.partition("/")
    return first if slash else ""


def signature_below(root: Path) -> str:
    """A hash of names, sizes and modification times of all images below `root`."""
    found = sorted((name, entry.path) for name, entry in _walk(str(root)))
    try:
        return _hash((name, Path(path).stat()) for name, path in found)
    except OSError as error:
        raise BadData(f"{error.filename} cannot be read ({error.strerror}); make it readable and run again.") from None


def signature_of(paths: Iterable[Path]) -> str:
    """A hash of names, sizes and modification times of some files; one that is missing counts as such."""
    return _hash((path.name, path.stat()) for path in sorted(paths) if path.exists())


def _hash(found: Iterable[tuple[str, os.stat_result]]) -> str:
    listing = hashlib.sha256()
    for name, status in found:
        listing.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return listing.hexdigest()


def _walk(
    folder: str, above: str = "", around: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(name relative to the root, entry) of every image, in no order; hidden ones are passed over."""
    try:
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in around:
            raise BadData(f"{folder} is a link to a folder that it lies in; remove the link.")
        around |= {(place.st_dev, place.st_ino)}
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".")]
    except OSError as error:
        raise BadData(f"the folder {folder} cannot be read ({error.strerror}).") from None
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, f"{above}{entry.name}/", around)
        elif entry.name.lower().endswith(SUFFIXES):
            yield above + entry.name, entry
