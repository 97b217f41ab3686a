"""What an experiment has, what failed, what is to come."""

from pipeline_lib.records.files import write_text
from pipeline_lib.reporting.collect import collect, jobs, state
from tests.reporting.conftest import SENTENCE


def states(tree):
    return {job.place: state(tree.folder, job) for job in jobs(tree.experiment)}


def test_every_stage_of_the_plan_is_a_job(tree):
    built = tree(seeds=(0,))
    places = {job.place for job in jobs(built.experiment)}
    per_run = {f"digits/{m}/base/s0/{s}" for m in ("ddpm", "other") for s in _run_stages()}
    per_dataset = {f"digits/{s}" for s in ("data", "classifier", "reference", "bandwidths", "controls")}
    assert places == per_run | per_dataset


def test_complete_tree_is_done(tree):
    assert {s.status for s in states(tree().complete()).values()} == {"done"}


def test_empty_tree_is_pending(tree):
    assert {(s.status, s.sentence) for s in states(tree()).values()} == {("pending", "not run yet")}


def test_failure_reaches_what_needs_it_and_nothing_else(tree):
    built = tree().complete()
    built.fail("digits/ddpm/base/s0/train")
    found = states(built)
    failed = {place for place, s in found.items() if s.status == "failed"}
    assert failed == {f"digits/ddpm/base/s0/{s}" for s in _run_stages()}
    assert found["digits/ddpm/base/s0/ancestral/scores"].sentence == SENTENCE
    assert found["digits/ddpm/base/s0/ancestral/scores"].log == "digits/ddpm/base/s0/train/log.txt"


def test_a_record_does_not_count_while_its_training_is_made_anew(tree):
    built = tree().complete()
    (built.folder / "digits/ddpm/base/s0/train/manifest.json").unlink()
    write_text(built.folder / "digits/ddpm/base/s0/train/log.txt", "at it\n")
    tables = collect(built.folder, built.experiment)
    mine = [tables[n][tables[n]["method"].eq("ddpm") & tables[n]["seed"].eq(0)] for n in ("scores", "cumulative_error")]
    assert mine[0]["status"].tolist() == ["pending"]
    assert "started, not finished" in mine[0]["note"].iloc[0]
    assert mine[1].empty


def test_an_unreadable_record_becomes_a_pending_cell(tree):
    built = tree().complete()
    write_text(built.folder / "digits/ddpm/base/s0/ancestral/scores/scores.parquet", "cut short")
    scores = collect(built.folder, built.experiment)["scores"]
    mine = scores[scores["method"].eq("ddpm") & scores["seed"].eq(0)]
    assert mine["status"].tolist() == ["pending"]
    assert mine["nfe"].tolist() == [20]


def _run_stages():
    return ["train", *(f"ancestral/{s}" for s in ("sample", "errors", "scores"))]
