"""The push against a real `mlflow server`: several writers, outages, a lost database."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.exits import TryAgain
from pipeline_lib.tracking import push
from tests.tracking import tree
from tests.tracking.server import Server, Way

ROOT = Path(push.__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("server"))
    yield one
    one.stop()


def make(folder, uri, name):
    """A complete experiment in a folder of its own."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planned = tree.plan(uri, name=name)
        tree.finish(planned)
    return planned


def start(folder, name):
    """`python -m pipeline_lib track NAME` as a process of its own."""
    command = [sys.executable, "-m", "pipeline_lib", "track", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def repeat(folder, planned):
    """The same within this process, without the seconds that it takes to import MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert push.run(planned.root, tree.experiment(planned)) == 0


def runs(server, name):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    known = client.get_experiment_by_name("digits")
    return client, client.search_runs([known.experiment_id], f"tags.`bench.experiment` = '{name}'") if known else []


def said(server, name):
    """What the runs of an experiment say, but for its name."""
    client, found = runs(server, name)
    return sorted(
        (
            run.info.run_name.replace(name, ""),
            run.info.status,
            sorted(run.data.params.items()),
            sorted({k: v for k, v in run.data.tags.items() if not k.startswith(("bench", "mlflow"))}.items()),
            sorted(
                (m.key, m.step, m.value)
                for k in run.data.metrics
                for m in client.get_metric_history(run.info.run_id, k)
            ),
            sorted(a.path for a in client.list_artifacts(run.info.run_id)),
        )
        for run in found
    )


def tree_of(folder):
    """The files of an experiment and their bytes; not what a push writes."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.parent.name != "tracking"}


def test_two_experiments_are_pushed_at_once(server, tmp_path, caplog):
    """Both make the MLflow experiment of their dataset, which only one can."""
    planned = {name: make(tmp_path / name, server.uri, name) for name in ("one", "other")}
    jobs = [start(tmp_path / name, name) for name in planned]
    errors = [job.communicate(timeout=100)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    for name in planned:
        _complete(server, name)
        before = said(server, name)
        with caplog.at_level("INFO"):
            repeat(tmp_path / name, planned[name])
        assert "0 runs new, 0 completed, 5 as they were" in caplog.messages[-1]
        assert said(server, name) == before


def _complete(server, name):
    client, found = runs(server, name)
    trained = [f"ddpm/{v} s{s}" for v in ("paper", "wide") for s in (0, 1)]
    assert sorted(r.info.run_name for r in found) == sorted([name, *trained])
    for run in (r for r in found if r.info.run_name != name):
        loss = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted(m.step for m in loss) == list(range(1, tree.STEPS + 1))
        assert run.info.status == "FINISHED"
        assert run.data.params["network.channels"] == ("256" if "wide" in run.info.run_name else "128")
        assert len(run.data.metrics) == 7


def test_an_outage_anywhere_in_a_push_is_made_up_for_by_the_next(server, tmp_path, monkeypatch):
    """Every push comes a little further, until one arrives; half of the time an answer is what is lost."""
    way = Way(server.port)
    planned = make(tmp_path / "world", way.uri, "cut")
    monkeypatch.chdir(tmp_path / "world")
    before = tree_of(planned.root)
    sentences, pieces = set(), 0
    while True:
        way.mend(pieces, swallow=bool(pieces % 2))
        try:
            push.run(planned.root, tree.experiment(planned))
        except TryAgain as error:
            sentences.add(str(error))
            pieces += 3
            assert not (planned.root / "tracking").exists()
        else:
            break
    assert pieces > 20
    for sentence in sentences:
        assert sentence.startswith(f"the tracking server {way.uri} d")  # does not answer, or did not take the results
        assert sentence.endswith((" again.", "safe in files."))
        assert "\n" not in sentence
        assert len(sentence) < 400
    assert tree_of(planned.root) == before
    repeat(tmp_path / "calm", make(tmp_path / "calm", server.uri, "calm"))
    assert said(server, "cut") == said(server, "calm")


def test_a_server_that_comes_back_without_its_database_gets_all_again(server, tmp_path):
    folder = tmp_path / "world"
    planned = make(folder, server.uri, "lost")
    repeat(folder, planned)
    before = said(server, "lost")
    server.stop()
    job = start(folder, "lost")
    text = job.communicate(timeout=100)[1]
    assert job.returncode == 75
    assert text.count("\n") == 1
    assert f"the tracking server {server.uri} does not answer" in text
    server.database.unlink()
    shutil.rmtree(server.folder / "artifacts")
    server.start()
    assert runs(server, "lost")[1] == []
    repeat(folder, planned)
    assert said(server, "lost") == before != []
