"""An `mlflow server` with SQLite behind it, and a way to it that breaks when it is told to."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """One worker on a port of this machine alone, with all its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri, self.database = f"http://127.0.0.1:{self.port}", folder / "mlflow.db"
        self.start()

    def start(self) -> None:
        """Returns once it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | QUIET)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        """Its workers end with it."""
        self.process.terminate()
        self.process.wait(30)


class Way:
    """A TCP proxy to `port`. It passes on `left` pieces from the client; then the way is broken, until `mend`.

    With `swallow` one more piece arrives, its answer is lost, and a few more pass: who asks a second time is heard
    twice.
    """

    def __init__(self, port: int) -> None:
        self.to, self.left, self.swallow = port, 0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self, pieces: int, swallow: bool = False) -> None:
        """Let so many pieces pass from now on."""
        self.left, self.swallow = pieces, swallow

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.to)) as server, contextlib.suppress(OSError):
            for source, piece in _pieces(client, server):
                if source is server:
                    client.sendall(piece)
                    continue
                self.left -= 1
                if self.left >= 0:
                    server.sendall(piece)
                    continue
                if self.swallow:
                    server.sendall(piece)
                    self.left, self.swallow = 5, False
                    server.settimeout(0.5)  # half a request gets no answer
                    server.recv(65536)
                return


def _pieces(*ends: socket.socket) -> Iterator[tuple[socket.socket, bytes]]:
    """What arrives at either end, until one closes."""
    while True:
        for source in select.select(ends, [], [])[0]:
            piece = source.recv(65536)
            if not piece:
                return
            yield source, piece
