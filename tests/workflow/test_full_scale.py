"""A dry run at full scale is quick, and lists the jobs that `plan` announces."""

import resource
import shutil

import pytest

from pipeline_lib.config.plan import load
from pipeline_lib.estimate import jobs
from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow


def test_data_alone_are_a_target(checkout: Checkout) -> None:
    shutil.copytree(ROOT / "configs", checkout.folder / "configs", dirs_exist_ok=True)
    assert checkout.jobs("--configfile", "configs/paper.yaml", "--", "datasets") == {"data": 9, "datasets": 1}


def test_the_paper_is_planned_within_ten_seconds_of_cpu(checkout: Checkout) -> None:
    shutil.copytree(ROOT / "configs", checkout.folder / "configs", dirs_exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = checkout.jobs("--configfile", "configs/paper.yaml")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert listed == {**jobs(load(ROOT / "configs/paper.yaml")), "all": 1}
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
