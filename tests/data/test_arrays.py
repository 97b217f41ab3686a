import errno
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.data import arrays


def test_appended_rows_are_a_plain_npy_file_even_where_the_header_grows() -> None:
    expected = np.arange(12_000 * 6, dtype=np.int64).reshape(12_000, 2, 3)
    with arrays.appending(Path("a.npy"), (2, 3), np.int64) as append:
        for start in range(0, 12_000, 5000):
            append(expected[start : start + 5000])
    np.testing.assert_array_equal(np.load("a.npy"), expected)
    np.save("numpy.npy", expected)
    assert Path("a.npy").read_bytes() == Path("numpy.npy").read_bytes()


def test_no_rows_are_an_empty_array() -> None:
    with arrays.appending(Path("a.npy"), (1, 2, 2), np.uint8):
        pass
    assert np.load("a.npy").shape == (0, 1, 2, 2)


@pytest.mark.parametrize("rows", [np.zeros((1, 3), np.uint8), np.zeros((1, 2), np.int64)])
def test_rows_of_another_kind_are_refused(rows: np.ndarray) -> None:
    with arrays.appending(Path("a.npy"), (2,), np.uint8) as append, pytest.raises(ValueError, match="rows are"):
        append(rows)


def test_a_full_disk_is_told_by_its_number() -> None:
    with pytest.raises(OSError, match="No space") as caught:
        arrays.save(Path("/dev/full"), np.zeros((1000, 100)))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("block", [1, 7 * 12, 2**25])
def test_rows_are_copied_in_the_order_asked_for_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block)
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 2, 2), dtype=np.uint8)
    np.save("from.npy", images)
    index = np.random.default_rng(1).permutation(50)[:33]
    arrays.copy_rows(Path("from.npy"), index, Path("to.npy"))
    np.testing.assert_array_equal(np.load("to.npy"), images[index])


def test_reserved_room_is_a_npy_file_of_that_shape() -> None:
    start = arrays.reserve(Path("a.npy"), (5, 2, 3), np.uint8)
    assert np.load("a.npy").shape == (5, 2, 3)
    with Path("a.npy").open("r+b") as stream:
        stream.seek(start + 4 * 6)
        stream.write(bytes(range(6)))
    np.testing.assert_array_equal(np.load("a.npy")[4], np.arange(6).reshape(2, 3))


def test_room_that_the_disk_has_not_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        arrays.reserve(Path("a.npy"), (5, 2, 3), np.uint8)


@pytest.mark.parametrize("block", [1, 100, 2**25])
def test_rows_are_left_out_in_place(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block)
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 2, 2), dtype=np.uint8)
    np.save("a.npy", images)
    index = np.sort(np.random.default_rng(1).permutation(50)[:33])
    arrays.keep_rows(Path("a.npy"), index)
    np.save("b.npy", images[index])
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
