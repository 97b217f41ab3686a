"""What an MLflow run is to say, read from the results of an experiment; MLflow itself is not needed here."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.sampled import is_scored, samplings_of
from pipeline_lib.exits import MARKER, BadData
from pipeline_lib.records import tables
from pipeline_lib.records.files import digest, sha256
from pipeline_lib.records.store import Manifest
from pipeline_lib.tracking.unfinished import HISTORY, KILLED, RUNNING, SCHEDULED, Unfinished, unfinished

FINISHED, FAILED = "FINISHED", "FAILED"
OPEN = (RUNNING, SCHEDULED)  # has no end
PASSING = ("failure", "live.job", "live.host", "live.step")  # tags that go once they are no longer true
FIGURES = (".png", ".svg", ".pdf")
LONGEST_PARAM = 500


@dataclass(frozen=True, order=True)
class Point:
    """One value of a metric."""

    key: str
    step: int
    value: float


@dataclass(frozen=True)
class Content:
    """One run. `identity` decides which run it is, `end_ms` (Unix milliseconds) is None while it is not over.

    What was `measured` (fingerprints, parameters, points) never changes within a run; `tags` may.
    """

    path: str
    name: str
    identity: dict[str, Any]
    status: str
    start_ms: int
    end_ms: int | None
    params: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    artifacts: dict[str, Path] = field(default_factory=dict)

    def key(self, experiment: str) -> str:
        """The key by which a run is found again."""
        return f"{experiment}/{self.path}@{digest(self.identity)[:16]}"

    def digest(self) -> str:
        """Hash of all that is pushed; times are left out, since a file that is written again is the same result."""
        return digest(
            {
                "run": [self.name, self.identity, self.status, self.params, self.fingerprints, self.tags],
                "points": [[p.key, p.step, p.value] for p in sorted(self.points)],
                "artifacts": {name: sha256(path) for name, path in self.artifacts.items()},
            }
        )


def dataset(folder: Path, name: str, experiment: Mapping[str, Any]) -> tuple[Content, list[Content]] | None:
    """The parent run of a dataset and its trained runs; None where the dataset was not prepared yet."""
    prepared = folder / name / "data" / "manifest.json"
    if not prepared.is_file():
        return None
    data = Manifest.load(prepared)
    expected = [one for one in experiment["instances"] if one["dataset"] == name]
    found = [run for one in expected if (run := instance(folder, one, experiment, data))]
    controls = folder / name / "controls" / "scores.parquet"
    complete = len(found) == len(expected) and controls.is_file() and all(run.status == FINISHED for run in found)
    known = {run.status for run in found}
    status = FINISHED if complete else next((s for s in (FAILED, RUNNING, KILLED) if s in known), SCHEDULED)
    ends = [run.end_ms for run in found if run.end_ms]
    start = min([_modified(prepared), *(run.start_ms for run in found)])
    parent = Content(
        path=name,
        name=experiment["experiment"],
        identity={"data": data.content},
        status=status,
        start_ms=start,
        end_ms=None if status in OPEN else max(ends, default=start),
        tags={
            "dataset": name,
            "data.sha256": data.content,
            "data.store": data.folder,
            "mlflow.note.content": experiment["title"],
            "mlflow.source.name": experiment["source"],
        },
        points=list(_controls(controls)) if controls.is_file() else [],
        artifacts={"manifests/data.json": prepared} | _figures(folder),
    )
    return parent, found


def instance(folder: Path, one: Mapping[str, Any], experiment: Mapping[str, Any], data: Manifest) -> Content | None:
    """What is known of one trained run, finished or not; None where nothing is there yet."""
    home = folder / one["path"]
    config = _json(home / "train" / "config.json")["config"]
    samplings = samplings_of(experiment, one["method"])
    manifests = _manifests(home, samplings, config)
    train, failure = manifests.get("train"), _failure(home)
    begun = None if train or failure else unfinished(folder, one, experiment, config, data)
    if not (train or failure or begun):
        return None
    costs = _json(home / "train" / "costs.json")
    status = FAILED if failure else FINISHED if _complete(home, experiment, samplings, manifests) else SCHEDULED
    ended = home / "train" / "manifest.json" if train else failure
    end = _modified(ended or home / "train" / "config.json")
    what = Content(
        path=one["path"],
        name=f"{one['method']}/{one['variant']} s{one['seed']}",
        # The configuration rather than the fingerprint of the training: a training that failed has none.
        identity={"config": config, "data": data.content},
        status=status,
        start_ms=end - round(1000 * costs.get("seconds", 0)),
        end_ms=None if status in OPEN else end,
        params=flatten(config),
        fingerprints={f"fingerprint.{stage.replace('/', '.')}": m.fingerprint for stage, m in manifests.items()},
        tags=_tags(one, experiment, data, train, costs, failure),
        points=[*_history(train.file(HISTORY) if train else None), *_measured(home, samplings, manifests)],
        artifacts=_grids(manifests) | {f"manifests/{stage}.json": _place(home, stage) for stage in manifests},
    )
    return replace(what, **_so_far(begun, what)) if begun else what


def _so_far(begun: Unfinished, what: Content) -> dict[str, Any]:
    """What a training that has not ended says in place of one that has."""
    return {
        "status": begun.status,
        "start_ms": begun.start_ms,
        "end_ms": begun.end_ms,
        "tags": what.tags | begun.tags,
        "points": list(_history(begun.history)),
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values under dotted keys, as text of at most LONGEST_PARAM characters; a cut one ends in its hash."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        short = f"{text[: LONGEST_PARAM - 20]}... {digest(text)[:16]}"
        flat[prefix + key] = text if len(text) <= LONGEST_PARAM else short
    return flat


def metric_name(text: str) -> str:
    """`text` without the characters that MLflow refuses in the name of a metric."""
    return re.sub(r"[^A-Za-z0-9_. :/-]", "", text)


def _tags(
    one: Mapping[str, Any],
    experiment: Mapping[str, Any],
    data: Manifest,
    train: Manifest | None,
    costs: Mapping[str, Any],
    failure: Path | None,
) -> dict[str, str]:
    values = {
        **{k: one[k] for k in ("dataset", "method", "variant", "seed")},
        "preset": experiment["methods"][one["method"]]["variants"][one["variant"]]["preset"],
        "data.sha256": data.content,
        "store": train.folder if train else None,
        "host": costs.get("host"),
        "device": costs.get("device"),
        "segments": costs.get("segments"),
        "failure": _json(failure).get("sentence") if failure else None,
        "mlflow.source.name": experiment["source"],
    }
    return {k: str(v) for k, v in values.items() if v is not None}


def _manifests(home: Path, samplings: Sequence[str], config: Mapping[str, Any]) -> dict[str, Manifest]:
    """The manifests that exist, by 'train' and '<sampling>/sample'; none for the training of an earlier `config`."""
    stages = ["train", *(f"{sampling}/sample" for sampling in samplings)]
    found = {stage: Manifest.load(_place(home, stage)) for stage in stages if _place(home, stage).is_file()}
    trained = "train" in found and _json(Path(found["train"].folder) / "identity.json").get("config") == config
    return found if trained else {}


def _place(home: Path, stage: str) -> Path:
    return home / stage / "manifest.json"


def _failure(home: Path) -> Path | None:
    """The marker of a permanent failure in any stage of a run."""
    return next(iter(sorted([*home.glob(f"train/{MARKER}"), *home.glob(f"*/*/{MARKER}")])), None)


def _records(home: Path, sampling: str, manifests: Mapping[str, Manifest]) -> dict[str, Path]:
    """The records that exist; one whose input is being made anew is of an earlier result, and does not count."""
    places = {"errors": "errors/errors.parquet", "trends": "errors/trends.parquet", "scores": "scores/scores.parquet"}
    needs = {"errors": "train", "trends": "train", "scores": f"{sampling}/sample"}
    found = {name: home / sampling / place for name, place in places.items() if needs[name] in manifests}
    return {name: path for name, path in found.items() if path.is_file()}


def _complete(
    home: Path, experiment: Mapping[str, Any], samplings: Sequence[str], manifests: Mapping[str, Manifest]
) -> bool:
    wanted = {
        sampling: {"errors", "trends", *(["scores"] if is_scored(experiment, sampling) else [])}
        for sampling in samplings
    }
    return all(names <= _records(home, sampling, manifests).keys() for sampling, names in wanted.items())


def _history(path: Path | None) -> Iterator[Point]:
    if path:
        frame = tables.read(path, tables.HISTORY)
        yield from _points("train/" + frame["key"], frame["step"], frame["value"])


def _measured(home: Path, samplings: Sequence[str], manifests: Mapping[str, Manifest]) -> Iterator[Point]:
    for sampling in samplings:
        records = _records(home, sampling, manifests)
        if "errors" in records:
            frame = _main_reading(tables.read(records["errors"], tables.ERRORS))
            keys = "mmd2/" + frame["kernel"] + f"/{sampling}/nfe" + frame["nfe"].astype(str)
            yield from _points(keys, frame["step"], frame["mmd2"])
        if "trends" in records:
            frame = _main_reading(tables.read(records["trends"], tables.TRENDS))
            names = "trend/" + frame["trend"] + "/" + frame["kernel"]
            keys = names + f"/{sampling}/nfe" + frame["nfe"].astype(str)
            yield from _points(keys, [0] * len(frame), frame["value"])
        if "scores" in records:
            frame = tables.read(records["scores"], tables.SCORES)
            keys = "score/" + frame["metric"] + f"/{sampling}/nfe" + frame["nfe"].astype(str)
            yield from _points(keys, [0] * len(frame), frame["value"])
        snapshots = home / sampling / "progress" / "progress.parquet"
        if f"{sampling}/sample" in manifests and snapshots.is_file():
            frame = tables.read(snapshots, tables.PROGRESS)
            keys = "progress/" + frame["metric"] + f"/{sampling}/nfe" + frame["nfe"].astype(str)
            yield from _points(keys, frame["step"], frame["value"])


def _main_reading(frame: pd.DataFrame) -> pd.DataFrame:
    """Against the marginal law, in one reading of the bandwidth: the paper's single kernel where it was asked for."""
    readings = set(frame["bandwidth"])
    main = "shared" if "shared" in readings else min(readings, default="")
    return frame[frame["law"].eq("marginal") & frame["bandwidth"].eq(main)]


def _controls(path: Path) -> Iterator[Point]:
    frame = tables.read(path, tables.SCORES)
    yield from _points(frame["control"] + "/" + frame["metric"], [0] * len(frame), frame["value"])


def _points(keys: Sequence[str] | pd.Series, steps: Sequence[int] | pd.Series, values: pd.Series) -> Iterator[Point]:
    """Points with a value; a pending one has none. Of two at one step the last stands, as after a resume."""
    rows = zip(keys, steps, values, strict=True)
    last = {(metric_name(key), int(step)): float(value) for key, step, value in rows}
    yield from (Point(key, step, value) for (key, step), value in last.items() if math.isfinite(value))


def _grids(manifests: Mapping[str, Manifest]) -> dict[str, Path]:
    found = {}
    for stage, manifest in manifests.items():
        for name in manifest.files:
            if name.endswith("grid.png"):
                found[f"samples/{stage.removesuffix('/sample')}/{name.replace('/', '-')}"] = manifest.file(name)
    return found


def _figures(folder: Path) -> dict[str, Path]:
    """Figures and report of the whole experiment, as far as they were made."""
    figures = sorted(p for p in (folder / "figures").rglob("*") if p.suffix in FIGURES)
    found = {f"figures/{p.relative_to(folder / 'figures')}": p for p in figures}
    report = folder / "report.html"
    return found | ({"report.html": report} if report.is_file() else {})


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise BadData(f"{path} cannot be read ({error}); delete it and run again.") from None


def _modified(path: Path) -> int:
    return int(path.stat().st_mtime * 1000)
