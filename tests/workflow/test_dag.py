"""The tiny experiment from data to report and MLflow, and what reruns after a change."""

import copy
import json
import resource
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow
REPORTS = {"tables": 1, "figures": 1, "report": 1, "track": 1, "all": 1}


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    change(values)
    return values


@pytest.fixture(scope="module")
def finished(checkout: Checkout) -> Checkout:
    """The experiment run once."""
    done = checkout.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


@pytest.fixture(autouse=True)
def _restore(checkout: Checkout) -> Any:
    yield
    checkout.configure(TINY)


def test_everything_is_there(finished: Checkout) -> None:
    results = finished.folder / "results" / "tiny"
    scores = pd.read_parquet(results / "tables" / "scores.parquet")
    measured = scores[scores.metric.str.startswith("FD")]
    assert set(measured.method) == {"ddpm", "other", "real", "noise"}
    assert measured.value.notna().all()
    fid = scores[scores.metric == "FID"]
    assert (fid.status == "pending").all()
    errors = pd.read_parquet(results / "tables" / "cumulative_error.parquet")
    assert len(errors) == 2 * 3 * 3 * 2  # methods x times x kernels x bandwidth readings
    assert (results / "report.html").stat().st_size > 20_000
    assert len(json.loads((results / "tracking" / "mlflow.json").read_text())["runs"]) >= 2


def test_equal_configurations_share_one_training(finished: Checkout) -> None:
    """'other' differs from 'ddpm' in name alone."""
    manifests = [
        json.loads((finished.folder / f"results/tiny/digits/{m}/paper/s0/train/manifest.json").read_text())
        for m in ("ddpm", "other")
    ]
    assert manifests[0] == manifests[1]


def test_runs_of_one_training_differ_by_nothing(finished: Checkout) -> None:
    """'other' and its control have the same weights, so the same chains."""
    rows = pd.read_parquet(finished.folder / "results/tiny/tables/cumulative_error_difference.parquet")
    assert len(rows) == (3 + 1) * 3 * 2  # times and their mean x kernels x bandwidth readings
    assert (rows[["difference", "se", "low", "high"]] == 0).all(axis=None)


def test_a_second_run_does_nothing_within_five_seconds(finished: Checkout) -> None:
    """CPU time, so that a busy machine does not matter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = finished.snakemake()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Nothing to be done" in done.stderr + done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_the_progress_display_says_that_nothing_is_to_be_done(finished: Checkout) -> None:
    done = finished.snakemake("--logger", "stages")
    assert done.stderr.strip().endswith("Nothing to be done: every result is there and up to date.")


def test_the_progress_display_names_a_lock(finished: Checkout) -> None:
    target = "results/tiny/report.html"
    locks = finished.folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(target)
    try:
        done = finished.snakemake("--logger", "stages", "-R", "report", "--", target)
    finally:
        (locks / "0.output.lock").unlink()
    assert done.returncode != 0
    assert "--unlock" in done.stderr


def test_a_lock_can_be_taken_away_after_an_edit(finished: Checkout) -> None:
    """A killed run, then a changed value: the change waits for the lock, but unlocking must not wait for the change."""
    lock = finished.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/tiny/report.html")
    finished.configure(changed(change_chains))
    refused = finished.snakemake("-n")
    assert (refused.returncode, "--unlock" in refused.stderr) == (75, True)
    unlocked = finished.snakemake("--unlock")
    lock.unlink(missing_ok=True)
    assert unlocked.returncode == 0, unlocked.stderr
    assert finished.jobs()["errors"] == 2
    finished.configure(TINY)
    assert finished.jobs() == {}


def test_a_deleted_record_is_made_again(finished: Checkout) -> None:
    """With what lies beside it: sentences about a damaged one say to delete the main one, which alone is missed."""
    cell = finished.folder / "results/tiny/digits/other/paper/s0/ancestral"
    beside = [cell / "errors" / f"{name}.parquet" for name in ("influences", "trends", "anatomy")]
    beside += [cell / "scores/influences.parquet"]
    for path in beside:
        path.write_bytes(b"PAR1")
    assert finished.jobs("--until", "errors", "scores") == {}
    for name in ("errors", "scores"):
        (cell / name / f"{name}.parquet").unlink()
    assert finished.jobs() == {"errors": 1, "scores": 1} | REPORTS
    assert finished.snakemake().returncode == 0
    assert all(len(pd.read_parquet(path).columns) > 1 for path in beside)


def test_a_deleted_training_says_how_to_make_it_anew(finished: Checkout) -> None:
    train = finished.folder / "results/tiny/digits/other/paper/s0/train"
    store = finished.folder / json.loads((train / "manifest.json").read_text())["folder"]
    moved = store.rename(store.with_name("moved"))
    target = "results/tiny/digits/other/paper/s0/ancestral/sample/manifest.json"
    done = finished.snakemake("--logger", "stages", "-R", "sample", "--", target)
    moved.rename(store)
    assert done.returncode != 0
    assert "is missing; make it anew with `snakemake --profile profiles/local -R train`" in done.stderr
    assert finished.snakemake().returncode == 0


def test_comments_and_white_space_rerun_nothing(finished: Checkout) -> None:
    config = finished.folder / "config.yaml"
    config.write_text("# a comment\n\n" + config.read_text() + "\n")
    for path in [finished.folder / "Snakefile", *(finished.folder / "rules").glob("*.smk")]:
        path.write_text(path.read_text() + "\n\n# a comment\n")
    assert finished.jobs() == {}


def change_lr(values: dict[str, Any]) -> None:
    values["methods"]["other"]["run"] = {"training": {"lr": 2e-3}}


def change_chains(values: dict[str, Any]) -> None:
    values["errors"]["chains"] = 32


def change_images(values: dict[str, Any]) -> None:
    values["sampling"]["ancestral"]["images"] = 90


def add_seed(values: dict[str, Any]) -> None:
    values["seeds"] = [0, 1]


def leave_out_the_first_of_equal_runs(values: dict[str, Any]) -> None:
    del values["methods"]["ddpm"]
    del values["methods"]["other"]["variants"]["paper"]["control"]


def change_the_order(values: dict[str, Any]) -> None:
    values["methods"] = dict(reversed(values["methods"].items()))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_lr, {"train": 1, "sample": 1, "errors": 1, "scores": 1}),
        (change_chains, {"bandwidths": 1, "errors": 2}),
        (change_images, {"sample": 2, "scores": 2}),
        (add_seed, {"train": 2, "sample": 2, "errors": 2, "scores": 2}),
        (leave_out_the_first_of_equal_runs, {}),
        (change_the_order, {}),
    ],
)
def test_a_changed_value_reruns_what_uses_it(finished: Checkout, change: Any, expected: dict[str, int]) -> None:
    finished.configure(changed(change))
    assert finished.jobs() == expected | REPORTS
    finished.configure(TINY)
    assert finished.jobs() == {}


def test_changed_and_run_and_changed_back_finds_the_old_training(finished: Checkout) -> None:
    target = "results/tiny/digits/other/paper/s0/train/manifest.json"
    path = finished.folder / target
    before = path.read_bytes()
    finished.configure(changed(change_lr))
    assert finished.snakemake(target).returncode == 0
    assert path.read_bytes() != before
    finished.configure(TINY)
    assert finished.snakemake(target).returncode == 0
    assert path.read_bytes() == before
    assert "trained before: found in" in (path.parent / "log.txt").read_text()
    assert finished.jobs() == {}


def test_one_rule_can_be_run_again_for_one_method(finished: Checkout) -> None:
    target = "results/tiny/digits/other/paper/s0/ancestral/errors/errors.parquet"
    assert finished.jobs("-R", "errors", "--", target) == {"errors": 1}


def test_a_misspelt_target_ends_at_once(finished: Checkout) -> None:
    done = finished.snakemake("-n", "results/tiny/digits/dppm/paper/s0/train/manifest.json")
    assert done.returncode != 0
    assert "MissingRuleException" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v["errors"].update(chian=3), "unknown key 'errors.chian'; did you mean 'chains'?"),
        (lambda v: v["sampling"]["ancestral"].update(nfe=[9]), "nfe 9 is more than the 8 steps"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_78(finished: Checkout, change: Any, sentence: str) -> None:
    finished.configure(changed(change))
    done = finished.snakemake("-n")
    assert done.returncode == 78
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_values_on_the_command_line_are_refused(finished: Checkout) -> None:
    done = finished.snakemake("-n", "--config", "seeds=3")
    assert (done.returncode, "--config is not supported" in done.stderr) == (78, True)


def test_another_file_may_not_take_the_name_of_the_experiment(finished: Checkout) -> None:
    finished.configure(changed(add_seed), "copy.yaml")
    done = finished.snakemake("-n", "--configfile", "copy.yaml")
    assert (done.returncode, "belongs to config.yaml" in done.stderr) == (78, True)
    (finished.folder / "copy.yaml").unlink()


def test_a_failed_training_leaves_a_report_of_the_rest(finished: Checkout) -> None:
    """Last of this file, since it leaves a report of its own: one method cannot train, the other's cells are there."""

    def too_large(values: dict[str, Any]) -> None:
        values["methods"]["other"]["run"] = {"training": {"batch_size": 4096}}

    finished.configure(changed(too_large))
    done = finished.snakemake("--retries", "1", "--logger", "stages")
    assert done.returncode != 0
    sentence = "training.batch_size is 4096, but the dataset has only 1717 training images."
    log = finished.folder / "results/tiny/digits/other/paper/s0/train/log.txt"
    assert sentence in log.read_text()
    assert f"[failed ] train digits/other/paper/s0: error: {sentence}" in done.stderr
    report = (finished.folder / "results/tiny/report.html").read_text()
    assert sentence in report
    scores = pd.read_parquet(finished.folder / "results/tiny/tables/scores.parquet")
    fd = scores[scores.metric.str.startswith("FD")]
    assert fd[fd.method == "ddpm"].value.notna().all()
    assert (scores[scores.method == "other"].status == "failed").all()
