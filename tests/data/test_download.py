"""The download code against a server on this machine that cuts, ignores ranges, fails, or sends something else."""

import hashlib
import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.data import download
from pipeline_lib.data.download import fetch
from pipeline_lib.exits import BadData, TryAgain

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
TARGET = Path("data/file.bin")


class Server(http.server.ThreadingHTTPServer):
    """Says what it was asked for; `cut` bytes an answer at most, `ranges` whether it knows them."""

    content, cut, ranges, status = CONTENT, len(CONTENT), True, 200
    url = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"
        self.asked: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        content, start = self.server.content, 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_of_two_jobs_that_want_the_same_file_one_downloads_it(server: Server) -> None:
    server.cut = 30_000  # so that it takes four requests
    jobs = [threading.Thread(target=fetch, args=(server.url, TARGET, MD5)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert TARGET.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_file_is_got_once(server: Server) -> None:
    for _ in range(2):
        assert fetch(server.url, TARGET, MD5) == TARGET
        assert TARGET.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [p.name for p in TARGET.parent.iterdir()] == ["file.bin"]


def test_a_cut_transfer_goes_on_where_it_was_cut(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.cut = 40_000
    with caplog.at_level(logging.INFO):
        fetch(server.url, TARGET, MD5)
    assert server.asked == [None, "bytes=40000-", "bytes=80000-"]
    assert TARGET.read_bytes() == CONTENT
    assert "was cut at 40000 bytes; going on" in caplog.text


def test_a_later_run_goes_on_too(server: Server) -> None:
    TARGET.parent.mkdir()
    TARGET.with_name("file.bin.part").write_bytes(CONTENT[:70_000])
    fetch(server.url, TARGET, MD5)
    assert server.asked == ["bytes=70000-"]
    assert TARGET.read_bytes() == CONTENT


def test_a_part_that_was_complete_is_only_checked(server: Server) -> None:
    TARGET.parent.mkdir()
    TARGET.with_name("file.bin.part").write_bytes(CONTENT)
    fetch(server.url, TARGET, MD5)
    assert TARGET.read_bytes() == CONTENT


def test_without_ranges_it_begins_anew(server: Server) -> None:
    server.ranges = False
    TARGET.parent.mkdir()
    TARGET.with_name("file.bin.part").write_bytes(b"x" * 70_000)
    fetch(server.url, TARGET, MD5)
    assert (server.asked, TARGET.read_bytes()) == (["bytes=70000-"], CONTENT)


def test_cut_without_ranges_it_gives_up_and_keeps_what_came(server: Server) -> None:
    server.ranges, server.cut = False, 40_000
    with pytest.raises(TryAgain, match=r"is cut .*; 40000 bytes are kept, run again to go on"):
        fetch(server.url, TARGET, MD5)
    assert len(server.asked) == 2
    assert not TARGET.exists()


@pytest.mark.parametrize("left", [0, 40_000])
def test_something_else_is_thrown_away(server: Server, left: int) -> None:
    server.content = CONTENT[::-1]
    TARGET.parent.mkdir()
    TARGET.with_name("file.bin.part").write_bytes(CONTENT[:left])
    with pytest.raises(BadData, match=f"sent something else than the published file .its MD5 is not {MD5}"):
        fetch(server.url, TARGET, MD5)
    assert list(TARGET.parent.iterdir()) == []


def test_a_wrong_file_that_is_there_is_named(server: Server) -> None:
    TARGET.parent.mkdir()
    TARGET.write_bytes(CONTENT[:-1])
    with pytest.raises(BadData, match=r"data/file.bin is cut short or not the published file \(MD5 \w+, not"):
        fetch(server.url, TARGET, MD5)
    assert server.asked == []


def test_a_server_that_refuses_is_quoted(server: Server) -> None:
    server.status = 404
    with pytest.raises(
        BadData, match=r"\(the server says 404 Not Found\); get file.bin by hand, put it to data/file.bin"
    ):
        fetch(server.url, TARGET, MD5)


def test_without_a_network_it_says_how_to_get_the_file(server: Server) -> None:
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(
        BadData, match=r"cannot be reached \(.*refused\); get file.bin by hand, put it to data/file.bin"
    ):
        fetch(url, TARGET, MD5)


def test_a_server_that_falls_silent_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    silent = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: silent.wait(5))
    with pytest.raises(BadData, match=r"cannot be reached \(timed out\)"):
        fetch(server.url, TARGET, MD5)
    silent.set()
