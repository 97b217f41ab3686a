import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.data import batches
from pipeline_lib.data.batches import npz_blocks, unpickle
from pipeline_lib.exits import BadData
from tests.data.datasets import python2

CONTENT = {"data": np.arange(60, dtype=np.uint8).reshape(5, 12), "labels": [1, 2, 3], "batch_label": "x" * 300}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(protocol: int) -> None:
    found = unpickle(io.BytesIO(pickle.dumps(CONTENT, protocol)), "a")
    np.testing.assert_array_equal(found["data"], CONTENT["data"])
    assert (found["labels"], found["batch_label"]) == ([1, 2, 3], "x" * 300)


def test_pickles_of_python_2_are_read() -> None:
    data = python2(CONTENT)
    assert b"numpy.core.multiarray" in data
    assert b"_codecs" not in data
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(python2({"data": np.full(3, 200, np.uint8)}))  # noqa: S301
    found = unpickle(io.BytesIO(data), "a")
    np.testing.assert_array_equal(found["data"], CONTENT["data"])
    assert sorted(found) == sorted(CONTENT)


@pytest.mark.parametrize("function", [eval, Path.unlink, np.load, np.ctypeslib.load_library])
def test_a_pickle_that_names_a_function_is_refused(function: object) -> None:
    with pytest.raises(BadData, match=r"a.pkl is cut short or no batch of images \(it asks for"):
        unpickle(io.BytesIO(pickle.dumps({"data": function})), "a.pkl")


def test_a_cut_pickle_and_one_of_a_list_are_refused() -> None:
    for data in (pickle.dumps(CONTENT)[:-20], b"", b"<html>", pickle.dumps([1])):
        with pytest.raises(BadData, match=r"a is cut short or no batch of images"):
            unpickle(io.BytesIO(data), "a")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("block", [1, 30, 2**23])
def test_npz_rows_come_in_blocks(compressed: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", block)
    rows = np.random.default_rng(0).integers(0, 256, (7, 12), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)("a.npz", data=rows, labels=np.arange(7))
    found = list(npz_blocks(Path("a.npz"), "data"))
    np.testing.assert_array_equal(np.concatenate(found), rows)
    assert len(found) == {1: 7, 30: 4, 2**23: 1}[block]
    np.testing.assert_array_equal(np.concatenate(list(npz_blocks(Path("a.npz"), "labels"))), np.arange(7))


def test_other_npz_files_are_refused() -> None:
    np.savez("a.npz", data=np.array([{}]), turned=np.asfortranarray(np.zeros((3, 4))))
    for key in ("data", "turned", "gone"):
        with pytest.raises(BadData, match=r"a.npz is cut short or damaged \(.*(plain array|no item)"):
            list(npz_blocks(Path("a.npz"), key))
