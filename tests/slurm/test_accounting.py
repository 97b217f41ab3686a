"""The head where states come from sacct: somebody's scancel, and preemption that cancels, are ends of a job."""

import time
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from tests.slurm.cluster import cluster, missing
from tests.slurm.conftest import Experiment
from tests.slurm.hits import SETTINGS, hits, running, strike, variant

pytestmark = [pytest.mark.slurm, pytest.mark.torture]
HURT = ["cancelled", "preempted-cancel", "preempted-requeue"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    """All trainings are over."""
    if lacking := missing(accounting=True):
        pytest.skip(f"no accounting here ({', '.join(lacking)}): apt-get install slurmdbd mariadb-server")
    with cluster(accounting=True) as slurm:
        variants = {name: variant(name) for name in ["undisturbed", *HURT]}
        one = Experiment(tmp_path_factory.mktemp("accounting"), slurm, variants)
        head = one.start(*SETTINGS, "--slurm-status-command", "sacct")
        try:
            waiting, end = hits(one), time.monotonic() + 600
            while running(one) and time.monotonic() < end:
                strike(one, waiting)
                time.sleep(0.2)
            yield one
        finally:
            head.kill()
            head.wait()


def test_the_head_does_not_wait_for_ever(ended: Experiment) -> None:
    assert ended.heads[0].returncode == 0, ended.log.read_text()[-6000:]
    told = ended.cluster.ask("sacct", "-X", "-n", "-P", "-o", "JobIdRaw,State", "-S", "now-1hour")
    assert f"{ended.jobs('cancelled')[0]}|CANCELLED by " in told
    assert f"{ended.jobs('preempted-cancel')[0]}|PREEMPTED" in told


@pytest.mark.parametrize("name", HURT)
def test_the_weights_are_those_of_the_undisturbed_training(ended: Experiment, name: str) -> None:
    hurt, whole = (
        load_file(ended.folder / ended.manifest(one).folder / "weights.safetensors") for one in (name, "undisturbed")
    )
    assert all(torch.equal(hurt[key], whole[key]) for key in whole)


def test_a_preempted_job_that_slurm_queues_again_keeps_its_number(ended: Experiment) -> None:
    """While it may not start again, sacct says PREEMPTED: the record of before."""
    assert len(ended.jobs("preempted-requeue")) == 1
    assert len(ended.slurm_logs("preempted-requeue")) == 1
