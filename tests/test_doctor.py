"""The checks before a run, against a cluster of shell scripts that say what a real one would."""

import fcntl
import http.server
import json
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib import doctor
from pipeline_lib.doctor import ABSENT, FAIL, OK, WARN, Check, Profile
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL, changed, plan
from tests.workflow.conftest import ROOT

CONFIG = "JobRequeue              = 1\nGresTypes               = gpu\nMinJobAge               = 300 sec\n"
PARTITION = "PartitionName=gpu MaxTime=1-00:00:00 State=UP PreemptMode=REQUEUE"
SAYS = {
    "squeue": "",
    "sbatch": "",
    "scontrol config": CONFIG,
    "scontrol partition": PARTITION,
    "sinfo": "gpu:a100:8",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the checks of a cluster whose commands say so; None: the command is not there, '!': it fails, '?': it
    fails and says what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if not Path("/usr/bin/squeue").exists() else str(folder))

    def ask(profile: Profile | None = None, runtime: dict[str, Any] | None = None, **says: str | None) -> dict:
        said = {**SAYS, **{k.replace("_", " "): v for k, v in says.items()}}
        config, partition = said.pop("scontrol config"), said.pop("scontrol partition")
        script(folder / "scontrol", f'case "$2" in config) {echo(config)};; *) {echo(partition)};; esac')
        for name, text in said.items():
            (folder / name).unlink(missing_ok=True)
            if text is not None:
                script(folder / name, echo(text))
        values = changed("runtime", {"train_minutes": 720, "job_minutes": 240, **(runtime or {})})
        mine = profile or Profile("p", "squeue", True, {"": "cpu", "train": "gpu"})
        return {one.name: one for one in doctor.slurm(plan(values), mine)}

    return ask


def echo(text: str | None) -> str:
    if text == "?":
        return 'echo "$*" >&2; exit 1'
    return "echo 'it is broken' >&2; exit 1" if text == "!" else f"printf '%s' '{text or ''}'"


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def verdicts(found: dict[str, Check]) -> dict[str, str]:
    return {name: one.verdict for name, one in found.items()}


def test_a_healthy_cluster_is_ok_throughout(site: Any) -> None:
    found = site()
    assert set(verdicts(found).values()) == {OK}
    shown = {"job states", "requeue", "MinJobAge", "partition cpu", "partition gpu", "GPU flags", "submission"}
    assert set(found) == shown


@pytest.mark.parametrize(
    ("says", "name", "verdict", "part"),
    [
        ({"squeue": "!"}, "job states", FAIL, "squeue does not answer (it is broken); set slurm-status-command: sacct"),
        ({"sbatch": None}, "SLURM", FAIL, "sbatch is not on the PATH"),
        ({"sbatch": "!"}, "submission", FAIL, "would refuse jobs of train (it is broken), or all their nodes are down"),
        ({"scontrol_config": "!"}, "scontrol", FAIL, "does not answer"),
        ({"scontrol_config": CONFIG.replace("300", "180")}, "MinJobAge", WARN, "forgets a job after 180 s"),
        ({"scontrol_config": CONFIG.replace("= gpu", "= ")}, "GPU flags", FAIL, "GresTypes"),
        ({"sinfo": "(null)"}, "GPU flags", FAIL, "no node of partition gpu has a GPU"),
        ({"scontrol_partition": "!"}, "partition gpu", FAIL, "there is none (it is broken)"),
        ({"scontrol_partition": PARTITION.replace("UP", "DOWN")}, "partition gpu", WARN, "it is DOWN"),
        ({"scontrol_partition": PARTITION.replace("REQUEUE", "CANCEL")}, "partition gpu", WARN, "retries"),
        ({"scontrol_partition": PARTITION.replace("REQUEUE", "SUSPEND,GANG")}, "partition gpu", WARN, "stands still"),
        ({"scontrol_partition": PARTITION.replace("1-00", "08")}, "partition gpu", FAIL, "MaxTime is 480 min"),
    ],
)
def test_each_fault_is_said_with_what_to_do(site: Any, says: dict, name: str, verdict: str, part: str) -> None:
    found = site(**says)
    assert found[name].verdict == verdict
    assert part in found[name].sentence


def test_each_partition_is_held_against_the_jobs_that_go_there(site: Any) -> None:
    """Eight hours are enough for the other jobs (240 min), and not for trainings (720 min)."""
    found = site(scontrol_partition=PARTITION.replace("1-00", "08"))
    assert verdicts(found)["partition cpu"] == OK
    assert verdicts(site(scontrol_partition=PARTITION.replace("1-00:00:00", "UNLIMITED")))["partition gpu"] == OK


def test_an_autoencoder_asks_for_the_minutes_of_a_training(site: Any) -> None:
    mine = Profile("p", "squeue", True, {"": "cpu", "train": "cpu", "autoencoder": "gpu"})
    assert verdicts(site(mine, scontrol_partition=PARTITION.replace("1-00", "08")))["partition gpu"] == FAIL


def test_jobs_over_several_nodes_start_their_own_steps(site: Any) -> None:
    """As docs/parallel.md says: mpi for the four rules whose jobs take runtime.nodes."""
    spread = {"nodes": 2, "processes": 8}
    mine = Profile("p", "squeue", True, {"": "cpu"}, frozenset({"train", "sample"}))
    found = site(mine, runtime=spread)["nodes"]
    assert found.verdict == FAIL
    assert "the jobs of reference, scores would start on one node only; set mpi: srun" in found.sentence
    for rules in ({"train", "sample", "reference", "scores"}, {""}):
        assert site(Profile("p", "squeue", True, {"": "cpu"}, frozenset(rules)), runtime=spread)["nodes"].verdict == OK
    assert "nodes" not in site(mine)


def test_slurm_is_asked_as_at_a_submission(site: Any, tmp_path: Path) -> None:
    """Flags of sbatch for what the experiment and the profile ask, and no GPU where the profile says so."""

    def asked(**train: Any) -> str:
        values = {
            "default-resources": ["slurm_partition=cpu", "slurm_account='mine'"],
            "set-resources": {"train": {"slurm_partition": "gpu", **train}},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        runtime = {"nodes": 2, "processes": 4, "memory_mb": 5000}
        found = site(Profile.read(tmp_path), runtime=runtime, sbatch="?")
        assert ("GPU flags" in found) == (train.get("gpu") != 0)
        assert found["submission"].sentence.count("--test-only") == 1
        return found["submission"].sentence

    flags = "--partition=gpu --account=mine --mem=5000 --nodes=2 --gpus=4 --time=720 --gpus-per-node=3, by"
    assert flags in asked(slurm_extra="'--gpus-per-node=3'")
    assert "--nodes=2 --time=720, by" in asked(gpu=0)


def test_mpi_in_a_profile_is_found(tmp_path: Path) -> None:
    def read(**values: Any) -> frozenset[str]:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        return Profile.read(tmp_path).mpi

    assert read(**{"set-resources": {"train": {"mpi": "srun"}, "sample": {"gpu": 0}}}) == {"train"}
    assert read(**{"default-resources": ["mpi=srun"]}) == {""}
    assert read() == set()


def test_requeue_by_the_profile_or_by_the_cluster(site: Any) -> None:
    without = Profile("p", "squeue", False, {})
    off = CONFIG.replace("= 1", "= 0")
    assert site(scontrol_config=off)["requeue"].verdict == OK
    assert site(without)["requeue"].verdict == OK
    assert site(without, scontrol_config=off)["requeue"].verdict == WARN


def test_sacct_is_asked_where_the_profile_says_so(site: Any) -> None:
    mine = Profile("p", "sacct", True, {})
    assert site(mine, sacct="")["job states"].sentence == "sacct answers"
    assert "sacct is not on the PATH" in site(mine, sacct=None)["job states"].sentence


@pytest.mark.parametrize(
    ("text", "minutes"), [("1-12:00:30", 2160.5), ("00:30:00", 30), ("UNLIMITED", None), ("INFINITE", None)]
)
def test_time_limits(text: str, minutes: float | None) -> None:
    assert doctor.limit(text) == minutes


def test_the_profile_that_the_project_has_is_understood() -> None:
    one = Profile.read(ROOT / "profiles/slurm")
    assert (one.asks, one.requeue, one.partitions[""], one.partitions["train"]) == ("squeue", True, "cpu", "gpu")
    with pytest.raises(BadConfig, match="nowhere"):
        Profile.read(Path("nowhere"))


def test_locks_that_exclude_nobody_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.lock(Path("results")).verdict == OK
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert doctor.lock(Path("results")).verdict == FAIL

    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    assert "Function not implemented" in doctor.lock(Path("results")).sentence
    assert not [*Path().glob(".doctor*")]


def test_a_file_system_of_one_host_is_no_place_for_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for kind, verdict in {"tmpfs": WARN, "nfs": OK}.items():
        script(tmp_path / "bin/stat", echo(kind))
        assert doctor.file_system(Path("results"), cluster=True).verdict == verdict
        assert doctor.file_system(Path("results"), cluster=False).verdict == OK


def test_disk_is_held_against_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, verdict in ((10**15, OK), (10**3, FAIL)):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        assert doctor.disk(plan()).verdict == verdict


@pytest.fixture
def server() -> Iterator[str]:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def test_a_tracking_server_must_answer(server: str) -> None:
    def check(uri: str, enabled: bool = True) -> Check:
        return doctor.tracking(plan(changed("tracking", {"uri": uri, "enabled": enabled})))

    assert check(server).verdict == OK
    assert check(f"{server}/else").verdict == WARN
    assert check("http://127.0.0.1:9").verdict == FAIL
    assert check("http://127.0.0.1:9", enabled=False).verdict == ABSENT


def test_without_slurm_the_command_says_so_and_is_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert doctor.run(path, as_json=True) == 0
    found = {one["name"]: one["verdict"] for one in json.loads(capsys.readouterr().out)}
    assert found["SLURM"] == ABSENT
    assert FAIL not in found.values()
    path.write_text("experiment: one\nnonsense: 1\n")
    assert doctor.run(path) == 1
    assert "nonsense" in capsys.readouterr().out
