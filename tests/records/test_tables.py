"""Records keep their schema and provenance."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline_lib.exits import BadData
from pipeline_lib.records import tables

ROW = {"step": 1, "images": 64, "key": "loss", "value": 0.5}


def test_round_trip_with_units_and_provenance(tmp_path: Path) -> None:
    tables.write(tmp_path / "h.parquet", [ROW], tables.HISTORY, {"fingerprint": "f"})
    assert tables.read(tmp_path / "h.parquet", tables.HISTORY).to_dict("records") == [ROW]
    assert tables.provenance(tmp_path / "h.parquet") == {"fingerprint": "f"}
    assert pq.read_schema(tmp_path / "h.parquet").field("images").metadata[b"unit"] == b"images"


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tables.write(tmp_path / name, [ROW], tables.HISTORY)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_undeclared_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"undeclared columns.*colour"):
        tables.write(tmp_path / "h.parquet", [{**ROW, "colour": 1}], tables.HISTORY)


def test_a_damaged_or_foreign_record_is_refused(tmp_path: Path) -> None:
    tables.write(tmp_path / "h.parquet", [ROW], tables.HISTORY)
    with pytest.raises(BadData, match="lacks the columns"):
        tables.read(tmp_path / "h.parquet", tables.SCORES)
    (tmp_path / "h.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match="cannot be read"):
        tables.read(tmp_path / "h.parquet")


@pytest.mark.parametrize(
    ("record", "deleted"),
    [
        ("errors/errors", "delete it and"),
        ("errors/influences", "delete errors.parquet beside it and"),
        ("errors/trends", "delete errors.parquet beside it and"),
        ("scores/influences", "delete scores.parquet beside it and"),
        ("progress/influences", "delete progress.parquet beside it and"),
        ("controls/scores", "delete it and"),
    ],
)
def test_a_damaged_record_says_what_to_delete(record: str, deleted: str, tmp_path: Path) -> None:
    """Snakemake does not miss what no rule reads."""
    with pytest.raises(BadData, match=f"{deleted} run again"):
        tables.read(tmp_path / f"{record}.parquet")


def test_an_older_record_lacks_what_was_added_later(tmp_path: Path) -> None:
    old = [c for c in tables.SCORES if not c.later]
    tables.write(tmp_path / "s.parquet", [{"nfe": 10, "metric": "FID", "value": 2.0}], old)
    read = tables.read(tmp_path / "s.parquet", tables.SCORES)
    assert set(read.columns) == {c.name for c in tables.SCORES}
    assert read["sets"].isna().all()


def test_every_column_is_described() -> None:
    for columns in [*tables.SCHEMAS.values(), tables.IDENTITY]:
        assert all(c.description for c in columns)
        assert len({c.name for c in columns}) == len(columns)
