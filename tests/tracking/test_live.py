"""Runs of trainings that have not ended: what they say meanwhile, and that they end as the same runs."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.tracking import content, live, push
from pipeline_lib.tracking.unfinished import unfinished
from pipeline_lib.training import train
from pipeline_lib.training.lease import Lease, process
from tests.conftest import RUNTIME, tiny_run
from tests.tracking import tree
from tests.training.test_resume import After

KEY = "digits/ddpm/paper/s0"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A training after 400 steps, whose folder in the store is `begun.store`; the module has one database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("world"))
        planned = tree.plan()
        tree.prepare(planned)
        yield SimpleNamespace(planned=planned, store=tree.begin(planned, planned.instances[0], 400), folder=Path.cwd())


@pytest.fixture(autouse=True)
def _there(begun, monkeypatch):
    monkeypatch.chdir(begun.folder)


def pushed(planned):
    """The runs that a push has brought up to date, by path."""
    told, _ = push.push(planned.root, tree.experiment(planned))
    return told["runs"]


def client():
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{Path('results/mlflow.db').resolve()}")


def die(folder, step):
    """A lease whose holder vanished without giving it up."""
    lease = {"job": "7", "host": os.uname().nodename, "pid": 2**22 + 1, "token": "x", "step": step, "since": 1e9}
    (folder / "lease.json").write_text(json.dumps({**process(os.getpid()), **lease}))


def test_a_training_is_followed_from_its_first_checkpoint_to_its_end(begun):
    planned, one = begun.planned, begun.planned.instances[0]
    with Lease(begun.store, beat=60) as lease:
        lease.step = 431
        lease._write()
        identifier = pushed(planned)[KEY]
        run = client().get_run(identifier)
        assert (run.info.status, run.info.end_time) == ("RUNNING", None)
        assert run.data.tags["live.step"] == "431"
        assert run.data.tags["live.host"] == os.uname().nodename
        assert len(client().get_metric_history(identifier, "train/loss")) == 400
        assert client().get_run(pushed(planned)["digits"]).info.status == "RUNNING"
    tree.history(begun.store, one, 700)
    assert pushed(planned)[KEY] == identifier
    run = client().get_run(identifier)
    assert run.info.status == "SCHEDULED"  # left in order: its next job goes on
    assert not [tag for tag in run.data.tags if tag.startswith("live.")]
    assert len(client().get_metric_history(identifier, "train/loss")) == 700

    die(begun.store, 750)
    assert pushed(planned)[KEY] == identifier
    info = client().get_run(identifier).info
    assert (info.status, info.end_time) == ("KILLED", int(1000 * (begun.store / "lease.json").stat().st_mtime))

    with Lease(begun.store, beat=60):  # another one takes it over
        assert pushed(planned)[KEY] == identifier
        assert client().get_run(identifier).info.status == "RUNNING"

    tree.train(planned, one)
    tree.measure(planned, one)
    assert pushed(planned)[KEY] == identifier
    run = client().get_run(identifier)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1000 * tree.CLOCK)
    loss = client().get_metric_history(identifier, "train/loss")
    assert sorted(m.step for m in loss) == list(range(1, tree.STEPS + 1))
    assert "score/FD classifier-digits/ancestral/nfe100" in run.data.metrics
    assert not [tag for tag in run.data.tags if tag.startswith("live.")]


def test_what_is_given_up_for_another_configuration_is_not_waited_for(begun):
    two = begun.planned.instances[1]
    tree.begin(begun.planned, two, 10)
    first = pushed(begun.planned)[two.path]
    assert client().get_run(first).info.status == "SCHEDULED"
    changed = tree.plan(lr=5e-4)
    changed.write()
    tree.begin(changed, changed.instances[1], 10)
    second = pushed(changed)[two.path]
    assert second != first
    assert client().get_run(first).info.status == "KILLED"
    begun.planned.write()
    assert pushed(begun.planned)[two.path] == first  # and it stands again
    assert [client().get_run(one).info.status for one in (first, second)] == ["SCHEDULED", "KILLED"]


def test_it_goes_on_through_an_outage_until_all_has_ended(begun, monkeypatch, caplog):
    planned, naps = begun.planned, []
    answers = iter([push.push, TryAgain("the server is away."), push.push])

    def once(*arguments):
        answer = next(answers)
        if isinstance(answer, TryAgain):
            raise answer
        return answer(*arguments)

    def nap(seconds):
        naps.append(seconds)
        for one in planned.instances:
            tree.train(planned, one)
            tree.measure(planned, one)

    monkeypatch.setattr(live.push, "push", once)
    monkeypatch.setattr(live.time, "sleep", nap)
    assert main(["track", "suite", "--live", "2"]) == 0
    assert naps == [120.0, 120.0]
    assert "the server is away." in caplog.text
    assert not (planned.root / "tracking").exists()  # the output of the rule `track`
    standing = [r for r in client().search_runs(["1"]) if "bench.superseded_by" not in r.data.tags]
    assert [r.info.status for r in standing] == 5 * ["FINISHED"]


def test_the_first_push_tells_what_is_wrong(begun, monkeypatch):
    def broken(*_):
        raise BadData("a file is damaged.")

    monkeypatch.setattr(live.push, "push", broken)
    assert main(["track", "suite", "--live"]) == 65


def test_the_place_is_that_of_the_trainer(tiny_data, tmp_path, monkeypatch):
    """Seen from outside while a real training runs, and after it has left."""
    config, one = tiny_run(), {"dataset": "tiny", "init": None}
    about = Path("results/x"), one, {"latent": []}, config, tiny_data
    seen = []

    class Stop(After):
        def reason(self):
            seen.append(unfinished(*about))
            return super().reason()

    assert unfinished(*about) is None
    monkeypatch.setattr(train, "Stop", lambda minutes: Stop(7))
    with pytest.raises(TryAgain):
        train.run(config, RUNTIME, tmp_path / "manifest.json", tiny_data)
    assert (seen[0].status, seen[0].history, seen[0].tags["live.job"]) == ("RUNNING", None, "local")
    left = unfinished(*about)
    assert (left.status, left.end_ms) == ("SCHEDULED", None)
    assert {p.step for p in content._history(left.history)} == {5}  # a line of the log every 5 steps
    assert unfinished(about[0], {**one, "init": "tiny/ddpm/paper/s0"}, *about[2:]) is None  # not there yet
