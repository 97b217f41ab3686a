"""The bench: rows with their numbers, and a plain error where nothing is left to time."""

import json
from pathlib import Path

import pytest

from pipeline_lib import bench
from pipeline_lib.__main__ import main
from pipeline_lib.exits import BadConfig


def test_rows_are_written_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "train/ddpm-reg", "--seconds", "0.01", "--output", "b.json"]) == 0
    found = json.loads(Path("b.json").read_text())
    (row,) = found["rows"]
    assert row["name"] == "train/ddpm-reg"
    assert row["images_per_second"] == pytest.approx(row["batch"] / row["ms"] * 1e3)
    assert found["machine"]["torch"]
    assert "train/ddpm-reg" in capsys.readouterr().out


def test_a_name_without_rows() -> None:
    with pytest.raises(BadConfig, match="no row begins with trian; there are train/ddpm"):
        bench.run(Path("b.json"), ["trian"], 0.01)


def test_two_processes_beside_one(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[1]))
    assert main(["bench", "--only", "train/ddpm", "--seconds", "0.01", "--output", "b.json"]) == 0
    rows = {row["name"]: row for row in json.loads(Path("b.json").read_text())["rows"]}
    one, two = rows["train/ddpm"], rows["train/ddpm-2-processes"]
    assert (one["batch"], two["batch"]) == (64, 128)
    assert two["times_one_process"] == pytest.approx(two["images_per_second"] / one["images_per_second"])
    shown = capfd.readouterr().out  # also of the processes: the table of all of them and nothing else
    assert shown.count("written to") == 1
    assert "None" not in shown
