"""How far an experiment is, from what its jobs leave in results/."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib import status
from pipeline_lib.config.plan import load
from pipeline_lib.estimate import jobs
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from pipeline_lib.training.identity import store_of
from pipeline_lib.training.lease import process
from tests.conftest import RUNTIME, tiny_run
from tests.reporting.conftest import SENTENCE, Tree

RUN = "digits/ddpm/base/s0"
SAID = "2026-11-22 11:00:00,000 training: 40/200 steps, 2.5/s, 1 min 04 s left, loss 0.2\n"


def built() -> Tree:
    tree = Tree([0], [])
    tree.plan.write()
    tree.dataset()
    return tree


def ended(tree: Tree) -> None:
    """The last files of tables, figures, report and tracking."""
    for name in ("tables/samplings.md", "figures/training.png", "report.html", "tracking/mlflow.json"):
        (tree.folder / name).parent.mkdir(exist_ok=True)
        (tree.folder / name).touch()


def found(tree: Tree) -> dict[str, status.Progress]:
    return {f"{one.run}/{one.stage}": one for one in status.measure(tree.folder, tree.experiment)}


def store(tree: Tree) -> Path:
    """Folder of the training of RUN, which has begun and said how fast it is."""
    config = json.loads((tree.folder / RUN / "train/config.json").read_text())["config"]
    folder = store_of(config, Manifest.load(tree.folder / "digits/data/manifest.json")).folder
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(SAID)
    return folder


def lease(folder: Path, age: float = 3.0, **other: Any) -> None:
    values = {"job": "42", "host": socket.gethostname(), "pid": os.getpid(), "token": "t", "step": 50}
    (folder / "lease.json").write_text(json.dumps({**values, **process(os.getpid()), **other}))
    os.utime(folder / "lease.json", (time.time() - age,) * 2)


def test_the_place_of_a_training_is_the_one_where_it_trains(tiny_data: Manifest) -> None:
    """Else a running one would be looked for in vain."""
    Path("out").mkdir()
    train.run(tiny_run(), RUNTIME, Path("out/manifest.json"), tiny_data)
    made = Manifest.load("out/manifest.json")
    assert made.folder == str(store_of(tiny_run(), tiny_data).folder)
    train.run({**tiny_run(), "seed": 1}, RUNTIME, Path("out/second.json"), tiny_data, init=made)
    second = Manifest.load("out/second.json")
    assert second.folder == str(store_of({**tiny_run(), "seed": 1}, tiny_data, made).folder)


def test_nothing_run_and_all_done() -> None:
    assert {one.state for one in status.measure(Path("results/none"), Tree([0], []).experiment)} == {"pending"}
    tree = Tree([0], []).complete()
    states = {one.stage: one.state for one in status.measure(tree.folder, tree.experiment)}
    waiting = {stage for stage, state in states.items() if state != "done"}
    assert waiting == {"tables", "figures", "report", "track"}
    ended(tree)
    assert {one.state for one in found(tree).values()} == {"done"}


def test_a_report_of_a_part_is_not_the_end() -> None:
    """As it is made after a failure; and tables that are being made have a log and no last file."""
    tree = Tree([0], []).complete()
    ended(tree)
    (tree.folder / "tables/log.txt").write_text("12:00:00 tables\n")
    (tree.folder / "tables/samplings.md").unlink()
    states = {one.stage: one.state for one in found(tree).values()}
    assert (states["tables"], states["report"]) == ("running", "done")
    tree.fail(f"{RUN}/train")
    states = {one.stage: one.state for one in found(tree).values()}
    assert {states[stage] for stage in ("tables", "figures", "report", "track")} == {"pending"}


def test_it_counts_as_many_jobs_as_the_plan() -> None:
    tree = Tree([0, 1], [])
    assert len(found(tree)) == sum(jobs(tree.plan).values())


@pytest.mark.parametrize("name", ["cross-digits", "guidance-digits", "latent-digits", "tuning-digits", "paper"])
def test_it_counts_as_many_jobs_as_the_plan_of_every_kind_of_sampling(name: str, tmp_path: Path) -> None:
    """Moments, searches, guides and latents have jobs of their own, and a failure in one must show."""
    plan = load(Path(__file__).parents[1] / "configs" / f"{name}.yaml")
    assert len(status.measure(tmp_path, plan.summary())) == sum(jobs(plan).values())


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "import pipeline_lib.status as s; s._write('x\\n' * 10**6)"
    command = f'set -o pipefail; {sys.executable} -c "{code}" | head -1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


def test_a_running_training_tells_step_rate_time_left_and_who_does_it() -> None:
    tree = built()
    lease(store(tree))
    one = found(tree)[f"{RUN}/train"]
    total = tree.plan.instances[0].run.training.steps
    assert (one.state, one.step, one.steps, one.rate, one.job) == ("running", 50, total, 2.5, "42")
    assert one.left == pytest.approx((total - 50) / 2.5)
    assert one.heartbeat == pytest.approx(3, abs=2)
    assert one.host == socket.gethostname()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"age": 500.0}, "last heartbeat is 8 min 20 s old"), ({"pid": 2**22 + 1}, f"process {2**22 + 1} on .* is gone")],
)
def test_a_dead_lease_is_no_running_training(changes: dict[str, Any], said: str) -> None:
    tree = built()
    lease(store(tree), **changes)
    one = found(tree)[f"{RUN}/train"]
    assert (one.state, one.step, one.left) == ("silent", 50, None)
    assert re.search(said, one.sentence)


def test_a_training_that_left_says_where_it_stopped_and_one_that_is_queued_that_it_waits() -> None:
    tree = built()
    folder, place = store(tree), tree.folder / RUN / "train"
    with (folder / "log.txt").open("a") as stream:
        stream.write("2026-11-22 11:01:00,000 left: stopped after step 77 of 200 because the time limit is near.\n")
    (place / "log.txt").write_text("11:01:00 stopped: ...\n")
    one = found(tree)[f"{RUN}/train"]
    assert (one.state, one.step, one.log) == ("stopped", 77, str(folder / "log.txt"))
    assert one.sentence.startswith("left: stopped after step 77")
    (place / "slurm-job.txt").write_text("43 digits_2f1c")
    os.utime(place / "slurm-job.txt", (time.time() + 5,) * 2)
    one = found(tree)[f"{RUN}/train"]
    assert (one.state, one.step, one.job) == ("waiting", 77, "43")


def test_a_stage_without_a_heartbeat_tells_by_its_log() -> None:
    tree = built()
    place = tree.folder / RUN / "ancestral/sample"

    def state(text: str = "", age: float = 5.0) -> status.Progress:
        (place / "log.txt").write_text(text)
        os.utime(place / "log.txt", (time.time() - age,) * 2)
        return found(tree)[f"{RUN}/ancestral/sample"]

    (place / "slurm-job.txt").write_text("7")
    waiting = found(tree)[f"{RUN}/ancestral/sample"]
    assert (waiting.state, waiting.job) == ("waiting", "7")
    os.utime(place / "slurm-job.txt", (time.time() - 5000,) * 2)
    one = state("11:00:00 sampling 20 calls: 128/512 images, 32/s, 12 s left\n")
    assert (one.state, one.step, one.steps, one.unit, one.left) == ("running", 128, 512, "images", 12.0)
    assert state("11:00:00 sampling\n", age=2000).state == "silent"
    one = state("11:00:00 stopped: the disk is full.\n")
    assert (one.state, one.sentence) == ("stopped", "stopped: the disk is full.")


def test_the_table_shows_failures_with_sentence_and_log(capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree([0], []).complete()
    tree.fail(f"{RUN}/train")
    status.run(tree.folder, tree.experiment)
    said = capsys.readouterr().out
    count = len(found(tree))
    assert said.startswith(f"{tree.folder.name}: {count - 5} of {count} jobs done, 1 failed, 4 pending\n")
    row = next(line for line in said.splitlines() if line.startswith(f"{RUN} "))
    assert row.split()[1:] == ["3/4", "train", "failed"]
    assert SENTENCE in said
    assert f"Log: {tree.folder}/{RUN}/train/log.txt" in said


def test_json_has_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree([0], []).complete()
    status.run(tree.folder, tree.experiment, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    places = [(one["run"], one["stage"]) for one in rows]
    assert places[-5:-3] == [("digits/other/base/s0", "ancestral/scores"), ("tiny", "tables")]
    assert len(rows) == len(found(tree))


def test_status_needs_no_torch() -> None:
    code = "import sys, pipeline_lib.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
