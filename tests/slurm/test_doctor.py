"""`doctor` beside a cluster that answers."""

import pytest

from pipeline_lib import doctor
from pipeline_lib.doctor import FAIL, OK, WARN, Profile
from tests.config.test_plan import changed, plan
from tests.slurm.cluster import Cluster
from tests.test_doctor import verdicts
from tests.workflow.conftest import ROOT


def test_it_tells_what_fits_and_what_does_not(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of tests/slurm: partitions cpu and gpu of an hour, GPUs, no accounting."""
    for key in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(key, slurm.environment[key])
    mine = Profile.read(ROOT / "profiles/slurm")

    def ask(minutes: int) -> dict[str, str]:
        runtime = {"train_minutes": minutes, "job_minutes": 30}
        return verdicts({one.name: one for one in doctor.slurm(plan(changed("runtime", runtime)), mine)})

    assert set(ask(60).values()) == {OK}, ask(60)
    assert ask(61)["partition gpu"] == FAIL
    sacct = Profile("p", "sacct", True, {"": "absent", "train": "cancel"})
    found = {one.name: one for one in doctor.slurm(plan(changed("runtime", {"train_minutes": 60})), sacct)}
    assert verdicts(found)["job states"] == FAIL
    assert verdicts(found)["partition absent"] == FAIL
    assert verdicts(found)["partition cancel"] == WARN
