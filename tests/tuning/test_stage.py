"""The tune stage, and what the sample and errors stages do with what it finds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.config.models import Sampling
from pipeline_lib.exits import BadConfig, BadData, TryAgain
from pipeline_lib.records import tables
from pipeline_lib.records.files import sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.samplers import _moments, _tuned
from pipeline_lib.samplers import _stage as sampling_stage
from pipeline_lib.scores import classifier, reference
from pipeline_lib.training import train
from pipeline_lib.tuning import _stage
from tests.conftest import RUNTIME, tiny_run
from tests.scores.conftest import SETTINGS, prepared

UNIFORM = {"name": "uniform-scaling", "images": 12, "low": 0.9, "high": 1.1, "strides": [0.1], "reach": 0}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Manifest]:
    """All that a tuning reads: a trained run, its data, and the extractor of scores."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    data = prepared(rng.integers(0, 255, (64, 1, 8, 8)).astype(np.uint8), labels=labels)
    train.run(tiny_run(), RUNTIME, tmp_path / "train.json", data)
    classifier.run({**SETTINGS, "steps": 2}, {}, tmp_path / "classifier.json", data)
    judged = Manifest.load(tmp_path / "classifier.json")
    reference.run({"inception_weights": None}, {}, tmp_path / "reference.json", data, judged)
    loaded = {name: Manifest.load(tmp_path / f"{name}.json") for name in ("train", "reference")}
    return {"data": data, "classifier": judged, **loaded}


def config(nfe: list[int], tuning: Any = UNIFORM, **more: Any) -> dict[str, Any]:
    sampling = Sampling(sampler="ddim", nfe=nfe, images=10, tuning=tuning, **more)
    return {**sampling.drawn(), **sampling.sought()}


def tune(made: dict[str, Manifest], nfe: list[int], **more: Any) -> tuple[Manifest, Any]:
    output = Path("out") / "manifest.json"
    output.parent.mkdir(exist_ok=True)
    given = {k: v for k, v in more.items() if k == "max_minutes"}
    settings = config(nfe, **{k: v for k, v in more.items() if k not in given})
    _stage.run(settings, {"batch": 5}, output, Path("out/trials.parquet"), **made, **given)
    return Manifest.load(output), tables.read("out/trials.parquet", tables.TRIALS)


def sample(made: dict[str, Manifest], settings: dict[str, Any], tuned: Manifest | None) -> Manifest:
    sampling_stage.run(settings, {"batch": 5}, Path("sample.json"), made["train"], tuned=tuned)
    return Manifest.load("sample.json")


def test_found_constants_are_those_of_the_best_trial_and_reach_the_samples(made: dict[str, Manifest]) -> None:
    tuned, rows = tune(made, [2, 4])
    assert len(rows) == 2 * 3
    for nfe, of_cell in rows.groupby("nfe"):
        best = of_cell.sort_values("score").iloc[0]
        assert best["chosen"] == "chosen"
        assert (of_cell["chosen"] == "chosen").sum() == 1
        assert (of_cell["calls"] == 12 * nfe).all()
        assert json.loads(tuned.file(_tuned.file(int(nfe))).read_text())["correction"]["b"] == best["b"]
    drawn = sample(made, config([2, 4]), tuned)
    corrections = [json.loads(rows.loc[rows["nfe"].eq(4) & rows["chosen"].eq("chosen"), "options"].iloc[0])]
    plain = sample(made, config([4], tuning=None, corrections=corrections), None)
    images = [np.load(m.file(m.facts["cells"][-1]["images"])) for m in (drawn, plain)]
    assert np.array_equal(*images)


def test_another_number_of_calls_leaves_what_is_there(
    made: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, rows = tune(made, [2])
    first = sample(made, config([2]), tuned)
    asked: list[int] = []
    original, drew = _stage.Bench.score, sampling_stage.Cell._draw
    monkeypatch.setattr(_stage.Bench, "score", lambda self, *a: (asked.append(self.nfe), original(self, *a))[1])
    more, again = tune(made, [2, 4])
    assert set(asked) == {4}
    assert again[again["nfe"].eq(2)].equals(rows)
    assert more.files[_tuned.file(2)] == tuned.files[_tuned.file(2)]
    monkeypatch.setattr(sampling_stage.Cell, "_draw", lambda self, f, nfe: (asked.append(-nfe), drew(self, f, nfe))[1])
    second = sample(made, config([2, 4]), more)
    assert [n for n in asked if n < 0] == [-4]
    assert set(first.files.items()) < set(second.files.items())


def test_so_it_does_where_moments_are_measured(made: dict[str, Manifest]) -> None:
    """Keys of searches and cells: a sampler that asks for moments is told those of its own calls alone."""
    drawn: list[Manifest] = []
    searched: list[Manifest] = []
    for calls in ([2], [2, 4]):
        settings = {**config(calls), "sampler": {"name": "analytic-dpm", "images": 20}}
        settings["tuning"] = {**UNIFORM, "name": "uniform-scaling"}
        asked = {k: settings[k] for k in ("sampler", "spacing", "nfe", "seed", "clip_x0")}
        _moments.run(asked, {"batch": 16}, Path("moments.json"), made["train"], made["data"])
        moments = Manifest.load("moments.json")
        _stage.run(settings, {"batch": 5}, Path("tune.json"), Path("trials.parquet"), **made, moments=moments)
        searched.append(Manifest.load("tune.json"))
        one = made["train"]
        sampling_stage.run(settings, {"batch": 5}, Path("sample.json"), one, moments=moments, tuned=searched[-1])
        drawn.append(Manifest.load("sample.json"))
    for few, more in (searched, drawn):
        assert few.folder == more.folder
        assert few.files.items() < more.files.items()


def test_time_that_is_up_keeps_the_trials(made: dict[str, Manifest]) -> None:
    with pytest.raises(TryAgain, match="the time limit is near; 0 trials are kept"):
        tune(made, [2], max_minutes=0.0)
    assert not Path("out/manifest.json").exists()


def test_constants_of_another_number_of_calls(made: dict[str, Manifest]) -> None:
    tuned, _ = tune(made, [2])
    moved = config([4], tuning=None, transfer={"sampling": "tuned", "nfe": 2})
    drawn = sample(made, moved, tuned)
    found = json.loads(tuned.file(_tuned.file(2)).read_text())["correction"]
    plain = sample(made, config([4], tuning=None, corrections=[found]), None)
    assert np.array_equal(*(np.load(m.file(m.facts["cells"][0]["images"])) for m in (drawn, plain)))
    with pytest.raises(BadConfig, match="give the manifest of their tuning"):
        sample(made, moved, None)
    slope = {"name": "epsilon-scaling", "k": -0.5, "b": 1.0}
    Path(tuned.folder, _tuned.file(2)).write_text(json.dumps({"correction": slope}))
    falling = replace(tuned, files={_tuned.file(2): sha256(Path(tuned.folder, _tuned.file(2)))})
    sample(made, {**moved, "nfe": [2]}, falling)
    with pytest.raises(BadConfig, match=r"at 4 calls, constants of \S+: lambda of epsilon-scaling is -0\.5 at step 0"):
        sample(made, moved, falling)
    with pytest.raises(BadData, match="has no nfe0004"):
        sample(made, config([4]), tuned)


def test_constants_are_part_of_what_decides_the_measured_chains(made: dict[str, Manifest]) -> None:
    from pipeline_lib.errors.chains import Chains

    sampling = Sampling(sampler="ddim", nfe=[2], tuning=UNIFORM)
    tuned, _ = tune(made, [2])
    own = _tuned.known(sampling, 2, tuned, tiny_run()["diffusion"])
    other = own.model_copy(update={"corrections": [{**own.corrections[0], "b": 1.3}]})
    chains = [Chains(None, "weights", one, 2, 8, (1, 8, 8)).scratch([0, 2]) for one in (own, other)]  # type: ignore[arg-type]
    assert chains[0] != chains[1]
    assert own.sought() == {}


def test_a_tuning_that_finds_nothing_has_the_cell_of_the_untuned_sampling(made: dict[str, Manifest]) -> None:
    tuned, _ = tune(made, [2])
    Path(tuned.folder, _tuned.file(2)).write_text(json.dumps({"correction": None}))
    nothing = replace(tuned, files={_tuned.file(2): sha256(Path(tuned.folder, _tuned.file(2)))})
    plain = sample(made, config([2], tuning=None), None)
    assert sample(made, config([2]), nothing).files == plain.files
    assert sample(made, config([2]), nothing).folder == plain.folder


@pytest.mark.parametrize("name", ["linear-scaling", "norm-ratio", "simulated", "per-step", "time-shift"])
def test_every_way_runs(made: dict[str, Manifest], name: str) -> None:
    own = {"linear-scaling": {"strides": [0.02]}, "time-shift": {"windows": [2], "cutoffs": [3]}}.get(name, {})
    tuned, rows = tune(made, [3], tuning={"name": name, "images": 12, **own})
    assert set(rows["way"]) == {name}
    chosen = rows[rows["chosen"].eq("chosen")]
    assert len(chosen) == 1
    assert json.loads(tuned.file(_tuned.file(3)).read_text())["correction"] == json.loads(chosen["options"].iloc[0])
    assert (
        len(
            np.load(
                sample(made, config([3], {"name": name, **own}), tuned).file(
                    Manifest.load("sample.json").facts["cells"][0]["images"]
                )
            )
        )
        == 10
    )
