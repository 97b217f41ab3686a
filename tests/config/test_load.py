"""Configuration files: merging, duplicate keys, numbers, and the sentences of mistakes."""

from pathlib import Path

import pytest

from pipeline_lib.config.load import merge, read
from pipeline_lib.exits import BadConfig


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_is_merged_over_what_it_extends(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "a: {x: 1, y: [1, 2]}\nb: 2\nc: {z: 1}")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\na: {y: [3]}\nc: null")
    assert read(top) == {"a": {"x": 1, "y": [3]}, "b": 2}


def test_merge_leaves_its_arguments_alone() -> None:
    below = {"a": {"x": 1}}
    assert merge(below, {"a": {"y": 2}}) == {"a": {"x": 1, "y": 2}}
    assert below == {"a": {"x": 1}}


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    assert read(write(tmp_path / "c.yaml", "lr: 1e-4\nname: e4\nn: 10"))["lr"] == 1e-4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: 'c' stands twice"),
        ("a: [1", "not valid YAML"),
        ("- a", "must hold a mapping"),
        ("extends: c.yaml", "extends itself"),
        ("extends: gone.yaml", "gone.yaml does not exist"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        read(write(tmp_path / "c.yaml", text))


def test_an_anchor_is_merged_under_the_keys_beside_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: &one {x: 1, y: 2}\nb:\n  <<: *one\n  y: 3\n")
    assert read(tmp_path / "c.yaml")["b"] == {"x": 1, "y": 3}
