"""Pruning removes what no manifest names, and nothing else."""

from pathlib import Path

import pytest

from pipeline_lib.records import prune
from pipeline_lib.records.store import STORE, alone, entry


def test_only_what_no_manifest_names_goes(capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for number in range(3):
        one = entry("train", 1, {"number": number})
        one.folder.mkdir(parents=True)
        (one.folder / "weights").write_text("w")
        one.finish(["weights"], {}).save(Path(f"results/exp/digits/ddpm/main/s{number}/train/manifest.json"))
        folders.append(one.folder)
    assert prune.orphans() == []
    Path("results/exp/digits/ddpm/main/s1/train/manifest.json").unlink()
    Path("results/exp/digits/ddpm/main/s2/train/manifest.json").unlink()
    (folders[2] / "identity.json").unlink()  # not finished: a training between two attempts
    assert prune.orphans() == [folders[1]]
    prune.run(delete=False)
    assert "1 could go" in capsys.readouterr().out
    assert folders[1].exists()
    prune.run(delete=True)
    assert [f.exists() for f in folders] == [True, False, True]


def test_what_a_killed_data_job_left_goes_unless_it_still_runs() -> None:
    part = STORE / ".data-0123456789abcdef.part"
    part.mkdir(parents=True)
    (part / "images.npy").write_text("half")
    with alone(STORE / "data-0123456789abcdef"):
        assert prune.orphans() == []
    assert prune.orphans() == [part]
    prune.run(delete=True)
    assert not part.exists()
