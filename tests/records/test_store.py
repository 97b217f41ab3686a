"""Files, manifests and the store."""

from pathlib import Path

import pytest

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import atomic
from pipeline_lib.records.store import Manifest, entry


def made(config: dict[str, int], content: str = "x") -> Manifest:
    one = entry("stage", 1, config)
    one.folder.mkdir(parents=True, exist_ok=True)
    (one.folder / "file").write_text(content)
    return one.finish(["file"], {"count": 1})


def test_a_broken_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match="the disk is full"), atomic(tmp_path / "file"), Path("/dev/full").open("w") as f:
        f.write("x")
    assert list(tmp_path.iterdir()) == []


def test_identity_is_stage_version_config_and_inputs() -> None:
    base = entry("s", 1, {"a": 1, "b": 2}, {"data": "x"}).fingerprint
    assert entry("s", 1, {"b": 2, "a": 1}, {"data": "x"}).fingerprint == base
    others = [
        entry("t", 1, {"a": 1, "b": 2}, {"data": "x"}),
        entry("s", 2, {"a": 1, "b": 2}, {"data": "x"}),
        entry("s", 1, {"a": 1, "b": 3}, {"data": "x"}),
        entry("s", 1, {"a": 1, "b": 2}, {"data": "y"}),
    ]
    assert len({base, *(o.fingerprint for o in others)}) == 5


def test_what_was_made_is_found_again_until_a_file_is_gone() -> None:
    manifest = made({"a": 1})
    assert entry("stage", 1, {"a": 1}).finished() == manifest
    assert entry("stage", 1, {"a": 2}).finished() is None
    (Path(manifest.folder) / "file").unlink()
    assert entry("stage", 1, {"a": 1}).finished() is None


def test_a_manifest_survives_a_round_trip_and_equal_results_have_equal_bytes(tmp_path: Path) -> None:
    made({"a": 1}).save(tmp_path / "one")
    made({"a": 1}).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert Manifest.load(tmp_path / "one") == made({"a": 1})


def test_a_changed_or_missing_file_is_refused() -> None:
    manifest = made({"a": 1})
    assert manifest.file("file").read_text() == "x"
    (Path(manifest.folder) / "file").write_text("y")
    with pytest.raises(BadData, match="not what it was"):
        manifest.file("file")
    (Path(manifest.folder) / "file").unlink()
    with pytest.raises(BadData, match="is missing"):
        manifest.file("file")


def test_a_cut_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text('{"stage": "tr')
    with pytest.raises(BadData, match="cannot be read"):
        Manifest.load(tmp_path / "m")
