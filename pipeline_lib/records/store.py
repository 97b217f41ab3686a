"""The content-addressed store of what costs time, and the small manifests that point into it.

`results/store/<stage>-<fingerprint>/` holds the files of one stage instance. Snakemake does not know of it, so it never
deletes it. The declared output of a rule is a manifest with the files' hashes and nothing that changes from one run to
the next (no times, no hosts: those go to costs.json), so an equal result has an equal manifest.
"""

import contextlib
import fcntl
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import digest, sha256, write_json, write_text

STORE = Path("results/store")
LOCKS = Path("work/locks")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What a stage made: where it lies, the sha256 of each file, and facts about it that consumers need."""

    stage: str
    fingerprint: str
    folder: str
    files: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Read a manifest; raises BadData where it is missing or cut short."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise BadData(f"the manifest {path} cannot be read ({error}); delete it and run again.") from None

    def save(self, path: Path | str) -> None:
        """Write the manifest atomically."""
        write_json(Path(path), asdict(self))

    def publish(self, output: Path) -> None:
        """Save the manifest as the declared output of a rule, with the costs of what it points to beside it."""
        costs = Path(self.folder) / "costs.json"
        if costs.is_file():
            write_text(output.parent / "costs.json", costs.read_text())
        self.save(output)

    @property
    def content(self) -> str:
        """One hash of all files: what a consumer's identity depends on."""
        return digest(self.files)

    def file(self, name: str) -> Path:
        """Path of a file, after its hash was compared; raises BadData where it is missing or changed."""
        path = Path(self.folder) / name
        if not path.is_file():
            raise BadData(f"{path} is missing; make it anew with `snakemake --profile profiles/local -R {self.stage}`.")
        if sha256(path) != self.files[name]:
            raise BadData(
                f"{path} is not what it was when it was made; delete {self.folder} and make it anew with "
                f"`snakemake --profile profiles/local -R {self.stage}`."
            )
        return path


@dataclass(frozen=True)
class Entry:
    """The place of one stage instance in the store."""

    stage: str
    fingerprint: str
    identity: dict[str, Any]

    @property
    def folder(self) -> Path:
        return STORE / f"{self.stage}-{self.fingerprint[:16]}"

    def finished(self) -> Manifest | None:
        """The manifest, if this very thing was made before and its files are still there."""
        path = self.folder / "manifest.json"
        if not path.is_file():
            return None
        manifest = Manifest.load(path)
        return manifest if all((self.folder / name).is_file() for name in manifest.files) else None

    def obtain(self, make: Callable[[], Manifest]) -> Manifest:
        """The finished manifest, or the one that `make` makes; of two jobs that want the same, one makes it."""
        manifest = self.finished()
        if manifest is None:
            with alone(self.folder):
                manifest = self.finished() or make()
        return manifest

    def finish(self, files: list[str], facts: Mapping[str, Any]) -> Manifest:
        """Record the files as the result; the manifest is written last, so its presence means that all is there."""
        hashes = {name: sha256(self.folder / name) for name in sorted(files)}
        manifest = Manifest(self.stage, self.fingerprint, str(self.folder), hashes, dict(facts))
        write_json(self.folder / "identity.json", self.identity)
        manifest.save(self.folder / "manifest.json")
        return manifest


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a folder in the store, or of any other path, once another job there has let go of it."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with _lock(path).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another job works in %s; waiting for it", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def busy(path: Path) -> bool:
    """Whether a job holds the lock of `path`."""
    if not _lock(path).is_file():
        return False
    with _lock(path).open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(path: Path) -> Path:
    if path.is_relative_to(STORE):
        return LOCKS / "-".join(path.relative_to(STORE).parts)
    return LOCKS / f"{digest(str(path.absolute()))[:16]}-{path.name}"


def entry(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str] | None = None) -> Entry:
    """The store entry of a stage: its fingerprint hashes stage, code version, configuration and input contents.

    `version` is bumped by hand when the code of a stage changes its results; a git hash here would redo everything
    for the sake of a comment.
    """
    identity = {"stage": stage, "version": version, "config": dict(config), "inputs": dict(inputs or {})}
    return Entry(stage, digest(identity), identity)
