"""Tunings in MLflow: a run for each search below the run that was tuned, and its trials below that."""

from pathlib import Path

import pytest

from tests.tracking import tree
from tests.tracking.test_push import client, rows, told, track

SEARCH = "digits/ddpm/paper/s0/ancestral/tune/nfe0020"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment of which one run is tuned, pushed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("world"))
        planned = tree.plan(tuning={"name": "uniform-scaling", "images": 8})
        tree.prepare(planned)
        tree.train(planned, planned.instances[0])
        tree.tune(planned, planned.instances[0])
        return planned, Path.cwd(), track(planned)


def test_trials_are_nested_and_a_second_push_adds_nothing(made, monkeypatch):
    planned, folder, pushed = made
    monkeypatch.chdir(folder)
    of_tuned = pushed["runs"]["digits/ddpm/paper/s0"]
    search = client().get_run(pushed["runs"][SEARCH])
    assert search.data.tags["mlflow.parentRunId"] == of_tuned
    assert search.info.run_name == "tune ancestral, 20 calls"
    assert search.data.params["found.b"] == "1.005"
    assert search.data.tags["at_end"] == "b"
    assert search.data.params["tuning.strides"] == "[0.005, 0.001]"
    assert search.data.metrics == {"FD classifier-digits": 7.0, "tuning/calls": 480.0, "tuning/trials": 3.0}
    query = f"tags.`mlflow.parentRunId` = '{search.info.run_id}'"
    trials = client().search_runs([search.info.experiment_id], query, order_by=["params.b"])
    said = {t.data.params["b"]: (t.data.metrics["FD classifier-digits"], t.data.tags["chosen"]) for t in trials}
    assert said == {"0.995": (9.0, "false"), "1.0": (8.0, "false"), "1.005": (7.0, "true")}
    assert rows("runs") == {"runs": 2 + 2 * (1 + 3)}
    before, counted = told(), rows("metrics", "params", "tags", "runs")
    assert track(planned) == pushed
    assert rows("metrics", "params", "tags", "runs") == counted
    assert told() == before
