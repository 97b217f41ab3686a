"""The push against a real sqlite store; one database for the whole file, since making one takes seconds."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import write_text
from pipeline_lib.tracking import push
from tests.tracking import tree

KEY = "digits/ddpm/paper/s0"


def client():
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{Path('results/mlflow.db').resolve()}")


def track(planned):
    assert push.run(planned.root, tree.experiment(planned)) == 0
    return json.loads((planned.root / "tracking" / "mlflow.json").read_text())


def rows(*tables):
    with sqlite3.connect("results/mlflow.db") as connection:
        return {t: connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in tables}


def told(database="results/mlflow.db"):
    """All that the runs say, without the ids that a rebuilt database draws anew."""
    own = "SELECT name, status, start_time, end_time FROM runs"
    values = """SELECT r.name, m.key, m.timestamp, m.step, m.value FROM metrics m JOIN runs r USING (run_uuid)"""
    params = "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)"
    tags = """SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid)
              WHERE t.key NOT IN ('mlflow.parentRunId', 'bench.superseded_by')"""
    with sqlite3.connect(database) as connection:
        return [sorted(connection.execute(query).fetchall(), key=repr) for query in (own, values, params, tags)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A complete experiment that was pushed once, with MLFLOW_RUN_ID of some other run in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("world"))
        patch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
        planned = tree.plan()
        tree.prepare(planned)
        for one in planned.instances:
            tree.train(planned, one)
            tree.measure(planned, one)
        write_text(planned.root / "report.html", "<html></html>")
        (planned.root / "figures").mkdir()
        tree.picture(planned.root / "figures" / "errors.png", 0)
        track(planned)
        return planned, Path.cwd()


@pytest.fixture
def world(made, monkeypatch):
    planned, folder = made
    monkeypatch.chdir(folder)
    return planned


@pytest.fixture
def pushed(world):
    return json.loads((world.root / "tracking" / "mlflow.json").read_text())


def test_one_parent_and_a_child_for_every_instance(world, pushed):
    assert set(pushed["runs"]) == {"digits", *(one.path for one in world.instances)}
    assert rows("runs") == {"runs": 5}
    parent = client().get_run(pushed["runs"]["digits"])
    assert parent.info.run_name == "suite"
    assert "mlflow.parentRunId" not in parent.data.tags
    child = client().get_run(pushed["runs"][KEY])
    assert child.info.run_name == "ddpm/paper s0"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert client().get_experiment(child.info.experiment_id).name == "digits"


def test_params_are_the_resolved_hyper_parameters(pushed):
    params = client().get_run(pushed["runs"][KEY]).data.params
    assert params["training.lr"] == "0.001"
    assert params["diffusion.schedule"] == "linear"
    assert params["network.channel_mult"] == "[1, 2, 2, 2]"
    assert params["seed"] == "0"


def test_tags_are_the_provenance(world, pushed):
    tags = client().get_run(pushed["runs"][KEY]).data.tags
    train = json.loads((world.root / KEY / "train" / "manifest.json").read_text())
    assert tags["fingerprint.train"] == train["fingerprint"]
    assert tags["store"] == train["folder"]
    assert (tags["method"], tags["variant"], tags["host"], tags["device"]) == ("ddpm", "paper", "node1", "cpu")
    assert tags["bench.key"].startswith(f"suite/{KEY}@")
    assert {"fingerprint.ancestral.sample", "data.sha256"} <= set(tags)


def test_metrics_are_curves_and_scores(pushed):
    identifier = pushed["runs"][KEY]
    loss = client().get_metric_history(identifier, "train/loss")
    assert [(m.step, m.value) for m in sorted(loss, key=lambda m: m.step)[:2]] == [(1, 1.05), (2, 0.55)]
    assert len(loss) == tree.STEPS
    last = client().get_run(identifier).data.metrics
    assert last["mmd2/laplace/ancestral/nfe20"] == 4.0
    assert last["trend/growth-ratio/laplace/ancestral/nfe100"] == 3.0
    assert last["score/FD classifier-digits/ancestral/nfe100"] == 7.25
    assert "train/loss/eps weighted" in last
    assert not any("FID" in name for name in last)  # pending: no value
    controls = client().get_run(pushed["runs"]["digits"]).data.metrics
    assert controls == {"floor/FD classifier-digits": 0.5, "ceiling/FD classifier-digits": 90.0}


def test_artifacts_lie_beside_the_database(pushed):
    base = Path("results/mlartifacts")
    child, parent = (base / pushed["runs"][name] / "artifacts" for name in (KEY, "digits"))
    found = sorted(str(p.relative_to(child)) for p in child.rglob("*") if p.is_file())
    assert found == [
        "manifests/ancestral/sample.json",
        "manifests/train.json",
        "samples/ancestral/nfe0020-grid.png",
        "samples/ancestral/nfe0100-grid.png",
        "samples/train/grid.png",
    ]
    assert (parent / "report.html").is_file()
    assert (parent / "figures" / "errors.png").is_file()


def test_a_complete_run_is_finished_and_took_as_long_as_its_training(pushed):
    info = client().get_run(pushed["runs"][KEY]).info
    assert info.status == "FINISHED"
    assert info.end_time - info.start_time == 600_000


def test_a_second_push_adds_nothing(world, pushed):
    before, counted = told(), rows("metrics", "params", "tags", "runs")
    text = (world.root / "tracking" / "mlflow.json").read_bytes()
    assert track(world) == pushed
    assert rows("metrics", "params", "tags", "runs") == counted
    assert told() == before
    assert (world.root / "tracking" / "mlflow.json").read_bytes() == text


def test_a_push_that_was_cut_short_goes_on_without_doubles(world, pushed):
    before = told()
    identifier = pushed["runs"][KEY]
    with sqlite3.connect("results/mlflow.db") as connection:
        connection.execute("DELETE FROM tags WHERE key = 'bench.pushed' AND run_uuid = ?", (identifier,))
        connection.execute(
            "DELETE FROM metrics WHERE key = 'train/loss' AND step > 700 AND run_uuid = ?", (identifier,)
        )
    assert track(world) == pushed
    assert told() == before


def test_a_lost_database_is_rebuilt(world, tmp_path, monkeypatch):
    before = told()
    shutil.copytree("results", tmp_path / "results", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    monkeypatch.chdir(tmp_path)
    # A process of its own, as in real life.
    command = [sys.executable, "-m", "pipeline_lib", "track", "suite"]
    environment = {**os.environ, "PYTHONPATH": str(Path(push.__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert told() == before
    assert not list(Path("results").glob(".mlflow*"))


def test_what_is_measured_anew_becomes_a_new_run(world, pushed):
    one = world.instances[0]
    tree.measure(world, one, scale=2.0)
    second = track(world)["runs"][KEY]
    assert second != pushed["runs"][KEY]
    assert client().get_run(second).data.metrics["score/FD classifier-digits/ancestral/nfe100"] == 14.5
    assert client().get_run(pushed["runs"][KEY]).data.tags["bench.superseded_by"] == second
    tree.measure(world, one)
    assert track(world) == pushed  # the first run stands again
    assert "bench.superseded_by" not in client().get_run(pushed["runs"][KEY]).data.tags
    assert client().get_run(second).data.tags["bench.superseded_by"] == pushed["runs"][KEY]


def test_a_changed_configuration_becomes_a_new_run_partial_then_failed_then_complete(world, pushed):
    changed = tree.plan(lr=5e-4)
    changed.write()
    one = changed.instances[0]
    shutil.rmtree(changed.root / one.path / "ancestral" / "scores")
    tree.train(changed, one)
    identifier = track(changed)["runs"][KEY]
    assert client().get_run(pushed["runs"][KEY]).data.tags["bench.superseded_by"] == identifier
    run = client().get_run(identifier)
    assert (run.info.status, run.data.params["training.lr"]) == ("SCHEDULED", "0.0005")

    tree.fail(changed, one)
    assert track(changed)["runs"][KEY] == identifier
    run = client().get_run(identifier)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "the loss is nan.")

    (changed.root / one.path / "train" / "failed.json").unlink()
    tree.measure(changed, one)
    assert track(changed)["runs"][KEY] == identifier
    run = client().get_run(identifier)
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert "score/FD classifier-digits/ancestral/nfe100" in run.data.metrics


@pytest.fixture
def small():
    """Prepared data in a folder of its own, and no database."""

    def make(uri):
        planned = tree.plan(uri)
        tree.prepare(planned)
        return planned

    return make


def test_a_server_that_is_not_there_is_told_within_seconds(small):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    planned, start = small(uri), time.monotonic()
    with pytest.raises(TryAgain, match="does not answer"):
        track(planned)
    assert time.monotonic() - start < 5


def test_a_server_that_never_answers_is_told_within_seconds(small, monkeypatch):
    monkeypatch.setattr(push, "PATIENCE_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        planned = small(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TryAgain, match="does not answer"):
            track(planned)


def test_a_file_that_is_no_database_is_named(small):
    planned = small("sqlite:///results/other.db")
    write_text(Path("results/other.db"), "no database" * 100)
    with pytest.raises(BadData, match=r"results/other\.db cannot be used .* delete it"):
        track(planned)


def test_a_database_that_another_process_holds_is_told(world, monkeypatch):
    monkeypatch.setattr(push, "PATIENCE_SECONDS", 0.1)
    other = sqlite3.connect("results/mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TryAgain, match="locked"):
            track(world)
    finally:
        other.close()


def test_switched_off_it_does_nothing(small, caplog):
    planned = small("sqlite:///results/mlflow.db")
    summary = tree.experiment(planned)
    summary["tracking"]["enabled"] = False
    with caplog.at_level("INFO"):
        assert push.run(planned.root, summary) == 0
    assert "switched off" in caplog.text
    assert not Path("results/mlflow.db").exists()
    assert not (planned.root / "tracking").exists()
