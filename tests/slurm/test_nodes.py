"""An experiment over two nodes, through Snakemake with the profile that docs/parallel.md describes, on a real cluster.

The nodes are of this machine and their GPUs are pretended: processes are on CPUs and meet through gloo. Two trainings
differ in their label alone. `whole` is done by one process before Snakemake starts, and its samples are drawn and
scored over two nodes; `spread` is trained there.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from pipeline_lib.__main__ import main
from pipeline_lib.config.plan import load
from pipeline_lib.doctor import SPREAD
from pipeline_lib.records import tables
from pipeline_lib.records.store import STORE, Manifest
from pipeline_lib.training.lease import Holder, holder_of
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.conftest import Experiment
from tests.training.parallel_cases import ROUNDING
from tests.workflow.conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]
STEPS, HELD, NODES = 16, 10, ["n2", "n3"]  # slow.py holds `spread` at the second
VARIANTS = {"spread": {"objective": {"hold": True}}, "whole": {}}
DATASET, RUN = Path("results/faults/digits"), Path("results/faults/digits/slow/whole/s0")
CELL = RUN / "ancestral"
INPUTS = {  # of a stage: the folder that it lies in, and those of its inputs
    "data": (DATASET, {}),
    "classifier": (DATASET, {"data": DATASET}),
    "train": (RUN, {"data": DATASET}),
    "reference": (DATASET, {"data": DATASET, "classifier": DATASET}),
    "sample": (CELL, {"train": RUN}),
    "scores": (CELL, {"sample": CELL, "classifier": DATASET, "reference": DATASET}),
}


class Spread(Experiment):
    """Two trainings, samples and scores of one; what Snakemake submits is of two processes on two nodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        profile = yaml.safe_load((self.folder / "profiles/slurm/config.yaml").read_text())
        profile["set-resources"] |= {rule: of | {"slurm_partition": "pair"} for rule, of in documented(1).items()}
        (self.folder / "profiles/nodes").mkdir()
        (self.folder / "profiles/nodes/config.yaml").write_text(yaml.safe_dump(profile))

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        config["base"]["training"]["steps"] = STEPS
        config["runtime"] |= {"processes": 2, "nodes": 2, "sample_batch": 16}
        return config

    def targets(self) -> list[Path]:
        return [self.place("spread") / "manifest.json", self.folder / output("scores")]

    def job(self, stage: str) -> str:
        """Number of the job of a stage that was submitted last."""
        folder = self.place("spread") if stage == "train" else (self.folder / output(stage)).parent
        return (folder / "slurm-job.txt").read_text().split()[0]

    def finish(self, cancel: bool = False) -> list[Holder | None]:
        """Run Snakemake to its end, with a training that is held for a while, and then perhaps cancelled.

        Returns the holders of leases at that time.
        """
        head = self.start("--profile", "profiles/nodes", "--retries", "2")
        try:
            self._wait(lambda: self._held() or head.poll() is not None)
            assert self._held(), self._what()
            leases = [holder_of(lease.parent) for lease in (self.folder / STORE).glob("train-*/lease.json")]
            if cancel:
                self.cluster.ask("scancel", self.job("train"))
                time.sleep(1)  # SIGTERM is on its way
            (self.folder / "steps/go").touch()
            self._wait(lambda: head.poll() is not None)
            assert head.returncode == 0, self._what()
        finally:
            head.kill()
            head.wait()
        return leases

    def _held(self) -> bool:
        return [step.step for step in self.steps("spread")].count(HELD) == 2

    def _wait(self, holds: Callable[[], object]) -> None:
        wait_until(holds, 180, self._what)

    def _what(self) -> str:
        return f"{self.log.read_text()[-6000:]}\n{self.cluster.describe()}"

    def stored(self, name: str) -> Path:
        """Folder of a training in the store."""
        return self.folder / self.manifest(name).folder


class Trained(Spread):
    """The training alone."""

    def targets(self) -> list[Path]:
        return [self.place("spread") / "manifest.json"]


@dataclass(frozen=True)
class Outcome:
    """What is left when all is over, and who held leases while the training was held."""

    one: Spread
    alone: Path  # where one process has measured the same
    leases: list[Holder | None]

    def pair(self, stage: str) -> list[Path]:
        """Folders in the store: what two nodes have made, and what one process has."""
        return [folder / Manifest.load(folder / output(stage)).folder for folder in (self.one.folder, self.alone)]


def documented(gpus_per_node: int) -> dict[str, dict[str, Any]]:
    """What docs/parallel.md sets for the rules that spread, with another number of GPUs."""
    (block,) = re.findall(r"```yaml\n(set-resources:.*?)```", (ROOT / "docs/parallel.md").read_text(), re.DOTALL)
    block, count = re.subn(r"--gpus-per-node=\d+", f"--gpus-per-node={gpus_per_node}", block)
    assert count == 1
    resources = yaml.safe_load(block)["set-resources"]
    assert resources.keys() == set(SPREAD)
    return resources


def output(stage: str) -> Path:
    """What a stage makes for `whole`."""
    return INPUTS[stage][0] / stage / ("scores.parquet" if stage == "scores" else "manifest.json")


def make(folder: Path, *stages: str) -> None:
    """Run stages in this process, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES"):  # slow.py writes them down
            patch.setenv(name, "none")
        if not (folder / DATASET).exists():
            load(Path("config.yaml")).write(claim=False)
        for stage in stages:
            made = output(stage)
            given = [part for name in INPUTS[stage][1] for part in (f"--{name}", str(output(name)))]
            given += ["--influences", str(made.with_name("influences.parquet"))] if stage == "scores" else []
            config = made.with_name("config.json")
            assert main([stage, "--config", str(config), *given, "--output", str(made)]) == 0


def measured_alone(one: Spread) -> Path:
    """A copy in which one process has measured again what was measured over two nodes."""
    alone = one.folder / "alone"
    shutil.copytree(one.folder / "results", alone / "results")
    shutil.copy(one.folder / "slow.py", alone)
    for entry in [*(alone / STORE).glob("reference-*"), *(alone / STORE).glob("sample-*")]:
        shutil.rmtree(entry)
    make(alone, "reference", "sample", "scores")
    return alone


def assert_equal(one: Spread) -> None:
    """The training over two nodes has the weights of the other, but for rounding."""
    ours, theirs = (load_file(one.stored(name) / "weights.safetensors") for name in ("spread", "whole"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert np.allclose(ours[key], theirs[key], rtol=0, atol=ROUNDING["ddpm"]), key


@pytest.fixture(scope="module")
def outcome(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Everything that happens."""
    one = Spread(tmp_path_factory.mktemp("nodes"), slurm, VARIANTS)
    make(one.folder, "data", "classifier", "train")
    leases = one.finish()
    return Outcome(one, measured_alone(one), leases)


@pytest.mark.parametrize("stage", SPREAD)
def test_each_job_had_two_nodes_and_two_processes(outcome: Outcome, stage: str) -> None:
    one = outcome.one
    said = one.cluster.ask("scontrol", "show", "job", one.job(stage))
    assert "JobState=COMPLETED" in said
    assert "NumNodes=2 " in said
    assert " NodeList=n[2-3]" in said
    place = one.place("spread") if stage == "train" else (one.folder / output(stage)).parent
    assert (place / "log.txt").read_text().count("2 processes work together") == 1


def test_each_step_was_done_once_by_a_process_on_each_node(outcome: Outcome) -> None:
    """One of them held the one lease."""
    one, steps = outcome.one, outcome.one.steps("spread")
    job = one.job("train")
    assert sorted((step.step, step.node) for step in steps) == [(n, node) for n in range(STEPS) for node in NODES]
    processes = {(step.job, step.process) for step in steps}
    assert len(processes) == 2
    assert len(outcome.leases) == 1
    assert {(held.job, str(held.pid)) for held in outcome.leases} <= processes
    runs = json.loads((one.stored("spread") / "costs.json").read_text())["runs"]
    assert [(run["job"], run["processes"]) for run in runs] == [(job, 2)]


def test_the_weights_are_those_of_one_process(outcome: Outcome) -> None:
    assert_equal(outcome.one)


def test_the_images_are_those_of_one_process(outcome: Outcome) -> None:
    ours, theirs = (np.load(folder / "nfe0004/images.npy") for folder in outcome.pair("sample"))
    assert len(ours) == 80
    assert np.array_equal(ours, theirs)


def test_features_and_scores_are_those_of_one_process(outcome: Outcome) -> None:
    """As tests/scores/test_shared.py has it for two processes of one host."""
    features = [np.load(folder / "classifier-digits-features.npy") for folder in outcome.pair("reference")]
    np.testing.assert_allclose(*features, rtol=0, atol=1e-5)
    found = [tables.read(folder / output("scores"), tables.SCORES) for folder in (outcome.one.folder, outcome.alone)]
    values = [rows[rows.status == "done"].value.to_numpy() for rows in found]
    assert len(values[0]) > 2
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)


@pytest.mark.torture
def test_a_cancelled_training_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    """SIGTERM reaches the processes on both nodes: none of their steps is lost, or done twice."""
    one = Trained(tmp_path, slurm, VARIANTS)
    make(one.folder, "data", "train")
    one.finish(cancel=True)
    turns = [(job, list(of)) for job, of in groupby(one.steps("spread"), key=lambda step: step.job)]
    (cancelled, before), (last, after) = turns
    assert one.cluster.states()[cancelled] == "CANCELLED"
    assert last == one.job("train")
    both = [(step.step, step.node) for step in before + after]
    assert sorted(both) == [(n, node) for n in range(STEPS) for node in NODES]
    folder = one.stored("spread")
    assert "because SIGTERM was received; the next attempt goes on" in (folder / "log.txt").read_text()
    runs = json.loads((folder / "costs.json").read_text())["runs"]
    assert [(run["job"], run["processes"], run["lost"]) for run in runs] == [(cancelled, 2, 0), (last, 2, 0)]
    assert_equal(one)
