"""Pictures of the MLflow pages and of the report for the documentation: `python -m pipeline_lib.tracking.screenshots`.

Starts an MLflow server of its own on a free local port, photographs it with headless Chromium, and stops it.
"""

import argparse
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.exits import BadData, PipelineError, TryAgain
from pipeline_lib.tracking.browser import Browser

log = logging.getLogger(__name__)

STARTUP_SECONDS = 60
WORKFLOW = "workflowType=machine_learning"  # the pages for trained models; the others are for chat traces
# The server opens an assistant beside every page at the first visit.
QUIET = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
VIEW = "localStorage.setItem('MLflowLocalStorage-1.1-ExperimentPage-[\"%s\"]-ReactComponentState', JSON.stringify(%s));"
UNFOLD = "document.querySelectorAll('[role=gridcell] button').forEach(b => b.click())"  # nested runs are folded
BARE = "document.head.insertAdjacentHTML('beforeend', '<style>.modebar-container {display: none}</style>')"


@dataclass(frozen=True)
class Page:
    """What a picture shows, the CSS selector that says when it is there, and a script to run before it is taken."""

    address: str
    wanted: str
    script: str = ""


def run(folder: Path, images: Path) -> list[Path]:
    """Photograph the runs, one run's curves and the report of the experiment in `folder`; returns the files.

    Raises TryAgain where Chromium is not installed or the server does not start, BadData where nothing was pushed yet.
    """
    pushed, database = _pushed(folder)
    images.mkdir(parents=True, exist_ok=True)
    made = []
    with Browser() as browser, _server(database) as address:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=QUIET + _view(pushed, database))
        for name, page in _pages(folder, pushed, address).items():
            browser.open(page.address, page.wanted)
            if page.script:
                browser.evaluate(page.script)
                browser.settle()
            made.append(images / name)
            browser.photograph(images / name)
            log.info("%s shows %s", images / name, page.address)
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


def _view(pushed: dict[str, Any], database: Path) -> str:
    """A script that makes the first scores the columns of the runs table."""
    experiment = next(iter(pushed["experiments"].values()))
    query = """SELECT DISTINCT key FROM latest_metrics JOIN runs USING (run_uuid)
               WHERE experiment_id = ? AND key LIKE 'score/%' ORDER BY key LIMIT 3"""
    with closing(sqlite3.connect(database)) as connection:
        columns = [f"metrics.`{key}`" for (key,) in connection.execute(query, (experiment,))]
    view = {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False}
    return VIEW % (experiment, json.dumps(view))


def _pages(folder: Path, pushed: dict[str, Any], address: str) -> dict[str, Page]:
    """Picture -> what it shows: the runs table and one trained run of the first dataset, and the report."""
    dataset, experiment = next(iter(pushed["experiments"].items()))
    base = f"{address}/#/experiments/{experiment}/runs"
    trained = next((i for path, i in pushed["runs"].items() if path.startswith(f"{dataset}/")), pushed["runs"][dataset])
    pages = {
        "mlflow-runs.png": Page(f"{base}?{WORKFLOW}", "[role=row] a[href*='/runs/']", UNFOLD),
        "mlflow-curves.png": Page(f"{base}/{trained}/model-metrics?{WORKFLOW}", ".main-svg", BARE),
    }
    report = folder / "report.html"
    return pages | ({"report.png": Page(report.resolve().as_uri(), "body")} if report.is_file() else {})


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
