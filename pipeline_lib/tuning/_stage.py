"""The tune stage: the constants of a correction for one trained run, a search for each number of network calls."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.base import load_part, parse
from pipeline_lib.config.models import Sampling
from pipeline_lib.data.prepared import Prepared, to_uint8
from pipeline_lib.networks import latent_space, trained
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.files import digest, sha256, write_json
from pipeline_lib.records.store import Manifest, alone, entry
from pipeline_lib.samplers import _moments, _tuned
from pipeline_lib.samplers._stage import classes_of, load_guide
from pipeline_lib.scores import frechet
from pipeline_lib.scores.extractors import INCEPTION
from pipeline_lib.scores.scoring import Scorer
from pipeline_lib.training.stop import Stop
from pipeline_lib.tuning._bench import Bench, Row, Trials, columns, complete

VERSION = 1
FOUND = "found"  # the round of a row that was measured in no trial of its own
log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    trials: Path,
    train: Manifest,
    data: Manifest,
    classifier: Manifest,
    reference: Manifest,
    autoencoder: Manifest | None = None,
    moments: Manifest | None = None,
    guide: Manifest | None = None,
    max_minutes: float | None = None,
) -> None:
    """Find the constants for every number of calls, unless it was done before; write the manifest and the `trials`.

    `config` holds a sampling with its tuning. Raises TryAgain, with all trials kept, where time is up.
    """
    watch, stop = Stopwatch("tune"), Stop(max_minutes).listen()
    sampling = parse(Sampling, config)
    given = {"train": train, "data": data, "classifier": classifier, "reference": reference}
    given |= {k: m for k, m in (("autoencoder", autoencoder), ("moments", moments), ("guide", guide)) if m}
    identity = {k: v for k, v in config.items() if k != "nfe"}
    contents = {name: m.content for name, m in given.items()}
    if moments:
        contents["moments"] = moments.fingerprint  # of how they were measured, since files come with numbers of calls
    store = entry("tune", VERSION, identity, contents)
    where = device.pick()
    weights = train.file(trained.weights_file(sampling.weights))
    denoiser, about = trained.ready(weights, where, sampling.precision)
    way, options = load_part("tuning", sampling.tuning or {})
    space = latent_space.load(autoencoder, where) if autoencoder else None
    metric, distance = judge(
        Scorer(classifier, reference, where, extrapolate=False), space.decode if space else to_uint8
    )
    images, by = Prepared(data), load_guide(sampling, guide, where)
    rows: list[Row] = []
    for nfe in sampling.nfe:
        folder = (store.folder / _tuned.file(nfe)).parent
        with alone(folder):
            bench = Bench(
                denoiser,
                _moments.known(sampling, moments, nfe),
                nfe,
                tuple(about["shape"]),
                options.images,
                images,
                distance,
                metric,
                Trials(folder / "trials.json", stop.reason),
                classes_of(about, sampling),
                runtime["batch"],
                where,
                by,
            )
            rows += [{"nfe": nfe, "way": config["tuning"]["name"], **row} for row in search(way, options, bench)]
    files = {_tuned.file(nfe): sha256(store.folder / _tuned.file(nfe)) for nfe in sampling.nfe}
    write_json(store.folder / "identity.json", store.identity)
    tables.write(trials, rows, tables.TRIALS, provenance.of("tune", VERSION, config, given))
    watch.save(output.parent, images=float(sum(row["images"] or 0 for row in rows)))
    Manifest("tune", store.fingerprint, str(store.folder), files).save(output)


def search(way: Any, options: Any, bench: Bench) -> list[Row]:
    """The trials of a way with the chosen one marked; what was found is kept beside them, for those who sample."""
    found, kept = bench.trials.path.with_name("found.json"), bench.trials
    if found.is_file():
        log.info("%d calls: tuned before, found in %s", bench.nfe, found.parent)
        chosen = json.loads(found.read_text())["correction"]
    else:
        kept.path.parent.mkdir(parents=True, exist_ok=True)
        chosen = complete(way.find(options, bench))
        log.info("%d calls: %s", bench.nfe, json.dumps(chosen))
        if not _of(chosen, bench):
            kept.add(FOUND, {"round": FOUND, "metric": "", **columns(chosen)})
        write_json(found, {"correction": chosen})
    names = [column.name for column in tables.TRIALS if column.name not in ("nfe", "way", "chosen")]
    marked = _of(chosen, bench)
    return [
        {**{name: row.get(name) for name in names}, "chosen": "chosen" if row in marked else ""} for row in kept.rows
    ]


def _of(correction: Mapping[str, Any] | None, bench: Bench) -> list[Row]:
    """The trial that decided for a correction, if one did."""
    keys = (FOUND, digest([bench.metric, correction]))
    return [row for row in bench.trials.rows if row["key"] in keys]


def judge(scorer: Scorer, decode: Callable[[Tensor], Tensor]) -> tuple[str, Callable[[Iterable[Tensor]], float]]:
    """Name and function of the score of batches of x_0: FID where its weights are there, else the FD of the classifier.

    `decode` makes uint8 images of x_0.
    """
    known = next((k for k in scorer.known if k.extractor.name == INCEPTION), scorer.known[0])
    extractor = known.extractor

    def distance(batches: Iterable[Tensor]) -> float:
        with torch.no_grad():
            moments = extractor.moments(part for x in batches for part in decode(x).split(extractor.batch))
        return frechet.distance(known.moments, moments, known.root)

    return extractor.metric, distance
