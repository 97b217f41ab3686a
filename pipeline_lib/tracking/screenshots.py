"""Pictures of the MLflow pages and of the report for the documentation: `python -m pipeline_lib.tracking.screenshots`.

Starts an MLflow server of its own on a free local port, photographs it with headless Chromium, and stops it.
"""

import argparse
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_lib.exits import BadData, PipelineError, TryAgain

log = logging.getLogger(__name__)

STARTUP_SECONDS = 60
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
)


def run(folder: Path, images: Path) -> list[Path]:
    """Photograph the runs, one run's curves and the report of the experiment in `folder`; returns the files.

    Raises TryAgain where Chromium is not installed or the server does not start, BadData where nothing was pushed yet.
    """
    browser = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if browser is None:
        raise TryAgain("Chromium is not installed; install it (Debian: apt-get install chromium) and run again.")
    pushed, database = _pushed(folder)
    images.mkdir(parents=True, exist_ok=True)
    made = []
    with _server(database) as address:
        for name, page in _pages(folder, pushed, address).items():
            made.append(images / name)
            _photograph(browser, page, images / name)
            log.info("%s shows %s", images / name, page)
    return made


def _pushed(folder: Path) -> tuple[dict[str, Any], Path]:
    """What the track stage wrote, and the database that it wrote to."""
    path = folder / "tracking" / "mlflow.json"
    if not path.is_file():
        raise BadData(f"{path} is missing; run `python -m pipeline_lib track {folder.name}` first.")
    pushed = json.loads(path.read_text())
    database = Path(pushed["uri"].removeprefix("sqlite:///"))
    if not database.is_file():
        raise BadData(f"the database {database} is missing; run `python -m pipeline_lib track {folder.name}` first.")
    return pushed, database


def _pages(folder: Path, pushed: dict[str, Any], address: str) -> dict[str, str]:
    """Picture -> address of what it shows: the runs table and a run of the first dataset, and the report."""
    dataset, experiment = next(iter(pushed["experiments"].items()))
    base = f"{address}/#/experiments/{experiment}/runs"
    trained = next((i for path, i in pushed["runs"].items() if path.startswith(f"{dataset}/")), pushed["runs"][dataset])
    report = folder / "report.html"
    pages = {"mlflow-runs.png": base, "mlflow-curves.png": f"{base}/{trained}/model-metrics"}
    return pages | ({"report.png": report.resolve().as_uri()} if report.is_file() else {})


@contextmanager
def _server(database: Path) -> Iterator[str]:
    """The address of an MLflow server on `database` that lives as long as the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database.resolve()}"]
    command += ["--artifacts-destination", str((database.parent / "mlartifacts").resolve())]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=output, stderr=output)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(server, address)
            yield address
        finally:
            server.terminate()
            server.wait(20)


def _wait(server: subprocess.Popen[bytes], address: str) -> None:
    end = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.3)
    raise TryAgain(f"the MLflow server did not start within {STARTUP_SECONDS} s; run again.")


def _photograph(browser: str, page: str, picture: Path) -> None:
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        flags = [*CHROMIUM_FLAGS, f"--user-data-dir={profile}", "--window-size=1600,900", f"--screenshot={shot}"]
        done = subprocess.run([browser, *flags, page], capture_output=True, text=True, timeout=120, check=False)
        if not shot.is_file():
            raise TryAgain(f"Chromium made no picture of {page}: {done.stderr.strip()[-200:]}")
        shutil.copy(shot, picture)


def _folder(experiment: str | None) -> Path:
    if experiment:
        return Path("results") / experiment
    pushed = sorted(Path("results").glob("*/tracking/mlflow.json"))
    if not pushed:
        raise BadData("nothing was pushed to MLflow yet; run `python -m pipeline_lib track <experiment>` first.")
    return pushed[0].parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.tracking.screenshots", description=__doc__)
    parser.add_argument("experiment", nargs="?", help="name of a pushed experiment (the first one)")
    parser.add_argument("--images", type=Path, default=Path("docs/images"), help="folder of the pictures")
    args = parser.parse_args(arguments)
    try:
        run(_folder(args.experiment), args.images)
    except PipelineError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
