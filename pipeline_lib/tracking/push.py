"""The track stage: an experiment as MLflow runs.

The files in results/ are the truth and MLflow is a view of them: whatever is missing there is pushed, what is there is
left alone, and a lost database is rebuilt by running the stage again. A run never changes what it says. Where something
was measured anew with another outcome, a new run is made and the old one gets the tag `bench.superseded_by`.
"""

import fcntl
import logging
import math
import os
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import atomic, write_json
from pipeline_lib.tracking import content
from pipeline_lib.tracking.content import Content, Point
from pipeline_lib.tracking.tunings import tunings

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

Found = Mapping[str, tuple[Content, list[Content]] | None]
PARENT = "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages then show runs first, not chat traces
PATIENCE_SECONDS = 3.0
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a run whose making is asked for twice is there twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def run(folder: Path, experiment: dict[str, Any]) -> int:
    """Push all that exists of the experiment in `folder`, and write tracking/mlflow.json there; returns 0.

    Raises TryAgain where the server does not answer or the database is locked, BadData where the database is damaged,
    BadConfig where `tracking.uri` is neither sqlite nor http(s).
    """
    if not experiment["tracking"]["enabled"]:
        log.info("tracking is switched off (tracking.enabled: false); nothing is pushed to MLflow")
        return 0
    pushed, _ = push(folder, experiment)
    write_json(folder / "tracking" / "mlflow.json", pushed)
    return 0


def push(folder: Path, experiment: dict[str, Any]) -> tuple[dict[str, Any], Found]:
    """Push all that exists; returns what mlflow.json says, and what was found of every dataset. Raises as `run`."""
    uri = experiment["tracking"]["uri"]
    database = _database(uri)
    with _locked(database.parent if database else folder.parent), _failures(uri, database, experiment["experiment"]):
        # Read under the lock: what another push has brought in meanwhile must not be taken back.
        contents = {name: content.dataset(folder, name, experiment) for name in experiment["datasets"]}
        client = _client(uri, database)
        pushed: dict[str, dict[str, str]] = {"experiments": {}, "runs": {}}
        done: Counter[str] = Counter()
        for name, found in contents.items():
            if found is None:
                log.info("%s: not prepared yet, nothing to push", name)
                continue
            view = View(client, _experiment(client, name, database), experiment["experiment"], done)
            parent, children = found
            pushed["experiments"][name] = view.id
            pushed["runs"][name] = view.push(parent)
            for child in children:
                pushed["runs"][child.path] = view.push(child, pushed["runs"][name])
            for one in experiment["instances"]:
                if one["dataset"] == name and one["path"] in pushed["runs"]:
                    for search, trials in tunings(folder, one, experiment):
                        pushed["runs"][search.path] = view.push(search, pushed["runs"][one["path"]])
                        for trial in trials:
                            view.push(trial, pushed["runs"][search.path])
    log.info("%s: %d runs new, %d completed, %d as they were", uri, done["new"], done["completed"], done["same"])
    return {"uri": uri, "key": experiment["experiment"], **pushed}, contents


class View:
    """The runs of one experiment of the benchmark within one MLflow experiment (a dataset)."""

    def __init__(self, client: "MlflowClient", identifier: str, experiment: str, done: Counter[str]) -> None:
        self.client, self.id, self.experiment, self.done = client, identifier, experiment, done
        self.runs = self._search()

    def push(self, what: Content, parent: str | None = None) -> str:
        """Bring the run of `what` up to date and return its id; makes one where none says the same."""
        key, digest = what.key(self.experiment), what.digest()
        fixed = {"bench.key": key, "bench.experiment": self.experiment, "bench.instance": what.path}
        fixed |= {PARENT: parent} if parent else {}
        run, missing = self._find(key, digest, what)
        if run is None:
            run = self.client.create_run(self.id, start_time=what.start_ms, tags=fixed, run_name=what.name)
        wanted = {**fixed, **what.tags, **what.fingerprints}
        same = run.data.tags.get("bench.pushed") == digest and run.info.status == what.status
        if same and run.data.tags.items() >= fixed.items():
            self.done["same"] += 1
        else:
            self.done["completed" if run in self.runs else "new"] += 1
            self._write(run, what, wanted, missing)
            self.client.set_tag(run.info.run_id, "bench.pushed", digest)
        self._supersede(run, what.path)
        return run.info.run_id

    def _search(self) -> "list[Run]":
        """All runs of the experiment, those that stand before those that were superseded."""
        query = f"tags.`bench.experiment` = '{self.experiment}'"
        page = self.client.search_runs([self.id], query, max_results=1000)
        found = list(page)
        while page.token:
            page = self.client.search_runs([self.id], query, max_results=1000, page_token=page.token)
            found += page
        return sorted(found, key=lambda r: ("bench.superseded_by" in r.data.tags, r.info.start_time, r.info.run_id))

    def _find(self, key: str, digest: str, what: Content) -> "tuple[Run | None, list[Point]]":
        """The run of this key that says nothing else than `what`, and the points that it lacks."""
        same = [r for r in self.runs if r.data.tags.get("bench.key") == key]
        for run in same:
            if run.data.tags.get("bench.pushed") == digest:
                return run, []
        for run in same:
            missing = self._missing(run, what)
            if missing is not None:
                return run, missing
        return None, what.points

    def _missing(self, run: "Run", what: Content) -> list[Point] | None:
        """The points that `run` lacks; None where it says something else."""
        if _differ(run.data.params, what.params) or _differ(run.data.tags, what.fingerprints):
            return None
        stored = {
            (key, m.step): m.value
            for key in {p.key for p in what.points} & set(run.data.metrics)
            for m in self.client.get_metric_history(run.info.run_id, key)
        }
        if any(not math.isclose(stored.get((p.key, p.step), p.value), p.value, rel_tol=1e-9) for p in what.points):
            return None
        return [p for p in what.points if (p.key, p.step) not in stored]

    def _write(self, run: "Run", what: Content, tags: Mapping[str, str], points: Sequence[Point]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        identifier = run.info.run_id
        # The history holds no times, since an equal training must give equal bytes; so all points get one origin.
        origin = run.info.start_time
        for batch in _batches([Metric(p.key, p.value, origin, p.step) for p in points], 1000):
            self.client.log_batch(identifier, metrics=batch)
        for batch in _batches([Param(k, v) for k, v in what.params.items()], 100):
            self.client.log_batch(identifier, params=batch)
        self.client.log_batch(identifier, tags=[RunTag(k, v) for k, v in tags.items()])
        for tag in set(content.PASSING) & set(run.data.tags) - set(tags):
            self.client.delete_tag(identifier, tag)
        self._write_artifacts(identifier, what.artifacts)
        if run.info.status != what.status and what.status in content.OPEN:
            self.client.update_run(identifier, what.status)
        elif run.info.status != what.status:
            self.client.set_terminated(identifier, what.status, what.end_ms)

    def _write_artifacts(self, identifier: str, artifacts: Mapping[str, Path]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for name, path in artifacts.items():
                (Path(scratch) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, Path(scratch) / name)
            self.client.log_artifacts(identifier, scratch)

    def _supersede(self, run: "Run", path: str) -> None:
        """Mark all other runs of this instance as superseded by `run`, which stands again if it was superseded.

        One that never came to an end will not any more.
        """
        identifier = run.info.run_id
        if "bench.superseded_by" in run.data.tags:
            self.client.delete_tag(identifier, "bench.superseded_by")
        for other in self.runs:
            tags = other.data.tags
            if tags.get("bench.instance") != path or other.info.run_id == identifier:
                continue
            if tags.get("bench.superseded_by") != identifier:
                self.client.set_tag(other.info.run_id, "bench.superseded_by", identifier)
            if other.info.status in content.OPEN:
                self.client.set_terminated(other.info.run_id, content.KILLED)


def _differ(told: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return any(told.get(k, v) != v for k, v in wanted.items())


def _batches(entities: list[Any], size: int) -> Iterator[list[Any]]:
    """Parts of at most `size`: a request to MLflow holds no more."""
    yield from (entities[i : i + size] for i in range(0, len(entities), size))


def _database(uri: str) -> Path | None:
    """The file of a sqlite URI; None for a server."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///"))
    return None


def _client(uri: str, database: Path | None) -> "MlflowClient":
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if database is None:
        _reach(uri)
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if database is None:
        return MlflowClient(uri)
    if database.is_file():
        with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection:
            connection.execute("PRAGMA schema_version")
    else:
        # MLflow's migrations, cut short, leave a database that nobody can open any more; so it is made aside.
        with atomic(database) as temporary:
            MlflowClient(f"sqlite:///{temporary.resolve()}").search_experiments()
    return MlflowClient(f"sqlite:///{database.resolve()}")


def _experiment(client: "MlflowClient", name: str, database: Path | None) -> str:
    """The id of the MLflow experiment of a dataset, which is made, or taken back from the bin, where it must be."""
    known = client.get_experiment_by_name(name)
    if known is None:
        # Without a location, files of a sqlite store would go below whatever folder this was started in.
        location = (database.parent / "mlartifacts").resolve().as_uri() if database else None
        try:
            return client.create_experiment(name, artifact_location=location, tags=KIND)
        except Exception:  # another folder pushes to the same server, and was faster
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return known.experiment_id


def _reach(uri: str) -> None:
    """Raise TryAgain where no server answers, without MLflow's minutes of retries."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PATIENCE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # something answers; whether it takes the results is seen when they are sent
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TryAgain(
            f"the tracking server {uri} does not answer ({reason}); start it or correct tracking.uri, then run "
            "this stage again: all results are safe in files."
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the only right to push: a database that several processes create together is broken for good."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _failures(uri: str, database: Path | None, experiment: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one sentence."""
    try:
        yield
    except Exception as error:
        name = type(error).__module__.split(".")[0]
        if name not in {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}:
            raise
        if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
            raise
        reason = (str(error).strip() or name).splitlines()[0][:200]
        again = f"run `python -m pipeline_lib track {experiment}` again"
        if database is None:
            raise TryAgain(f"the tracking server {uri} did not take the results ({reason}); {again}.") from error
        if "locked" in reason or "disk is full" in reason:
            raise TryAgain(f"{database} cannot be written at the moment ({reason}); later {again}.") from error
        raise BadData(
            f"the tracking database {database} cannot be used ({reason}); delete it and {again}: it is rebuilt."
        ) from error
