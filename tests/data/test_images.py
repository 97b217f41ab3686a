"""Many images at once: order, counts, duplicates, memory, and what happens to the processes."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.data import images, pool
from pipeline_lib.data.decode import Geometry
from pipeline_lib.data.images import Files, decode_all, duplicates, hash_rows
from pipeline_lib.exits import BadData, TryAgain
from tests.data.pictures import picture, put

GEOMETRY = Geometry(12)


def test_results_come_in_order_whatever_takes_long() -> None:
    assert list(pool.in_order(slow_square, range(12), 3)) == [n * n for n in range(12)]
    assert list(pool.in_order(slow_square, range(3), 1)) == [0, 1, 4]


def slow_square(n: int) -> int:
    time.sleep(0.02 if n % 3 == 0 else 0)
    return n * n


def test_only_a_few_jobs_are_ahead() -> None:
    taken: list[int] = []
    results = pool.in_order(slow_square, (taken.append(n) or n for n in range(100)), 2)  # type: ignore[func-returns-value]
    next(results)
    assert len(taken) <= 6
    results.close()


def die(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_a_killed_process_asks_to_try_again() -> None:
    with pytest.raises(TryAgain, match=r"a decoding process was killed.*runtime.memory_mb"):
        list(pool.in_order(die, range(8), 2))


def test_workers_end_with_a_parent_that_was_killed() -> None:
    code = (
        "import os, time; from pipeline_lib.data.pool import in_order\n"
        "def work(n):\n    os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)\n"
        "list(in_order(work, range(2), 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert len(set(workers)) == 2
    parent.kill()
    parent.wait()
    start = time.monotonic()
    assert parent.stdout.read() == ""  # returns when the last of them has closed it, else after the minute of sleep
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("cores", [1, 2])
def test_duplicates_are_counted_kept_and_told(
    cores: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(images, "cores", lambda: cores)
    monkeypatch.setattr(images, "BLOCK_FILES", 2)
    names = [put(Path(f"{i}.png"), picture(seed=i % 4)).name for i in range(6)]
    with caplog.at_level(logging.INFO):
        done = decode_all(Files("."), names, GEOMETRY, Path("images.npy"))
        assert duplicates(done.hashes) == 2
    found = np.load("images.npy")
    assert done.kept == list(range(6))
    np.testing.assert_array_equal(found[4], found[0])
    assert "2 of 6 images have the same pixels as an earlier one; all are kept" in caplog.text
    assert "decoding: 6/6 images" in caplog.text


@pytest.mark.parametrize("cores", [1, 2])
def test_a_disk_that_fills_up_is_told_by_its_number(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images, "cores", lambda: cores)
    monkeypatch.setattr(images, "BLOCK_FILES", 1)
    monkeypatch.setattr("os.pwrite", full)  # in the workers too, which are forked
    names = [put(Path(f"{i}.png")).name for i in range(4)]
    with pytest.raises(OSError, match="No space") as caught:
        decode_all(Files("."), names, GEOMETRY, Path("images.npy"))
    assert caught.value.errno == errno.ENOSPC


def test_one_changed_pixel_is_no_duplicate() -> None:
    rows = np.zeros((3, 3, 4, 4), np.uint8)
    rows[2, 0, 0, 0] = 1
    assert duplicates(hash_rows(rows)) == 1


def test_a_file_that_vanishes_is_not_a_damaged_image() -> None:
    with pytest.raises(BadData, match=r"\./gone.png cannot be read \(No such file"):
        decode_all(Files("."), ["gone.png"], GEOMETRY, Path("images.npy"), "skip")


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """390 MB of pixels; the process and its workers stay below 100 MB each."""
    put(Path("a.png"), picture(256, 256))
    code = (
        "import re, resource; from pathlib import Path\n"
        "from pipeline_lib.data.images import Files, decode_all; from pipeline_lib.data import images\n"
        "images.decode = lambda data, geometry: (bytes(256 * 256 * 3), 'RGB')\n"
        "decode_all(Files('.'), ['a.png'] * 2000, images.Geometry(256), Path('images.npy'))\n"
        "own = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path("images.npy").stat().st_size > 390e6
    assert int(done.stdout) < 100_000
    Path("images.npy").unlink()
