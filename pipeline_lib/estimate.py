"""What an experiment takes, before anything is downloaded or run: disk, trainings, jobs. No torch, nothing is written.

Unknown sizes are None and are shown as unknown; what lies in the store already is not subtracted.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil, prod
from operator import mul
from pathlib import Path
from textwrap import fill
from typing import Any

from pipeline_lib import measured
from pipeline_lib.config import progress
from pipeline_lib.config.base import load_part
from pipeline_lib.config.models import Dataset, Run, Sampling
from pipeline_lib.config.plan import Instance, Plan, image_shape
from pipeline_lib.data.sizes import needs
from pipeline_lib.exits import BadData
from pipeline_lib.records.store import Manifest
from pipeline_lib.terminal import columns
from pipeline_lib.training.identity import steps_done, store_of
from pipeline_lib.training.stop import usable

NUMBER = 4  # bytes of a float32
STATE = 4 * NUMBER  # of a parameter in a checkpoint: weight, its average, two moments of Adam
INCEPTION = 2048  # features of Inception for an image
SPARE = 3  # attempts that nodes, preemption and people may take from a training
CHECKPOINTS = 3  # two are kept while a third is written
UNKNOWN = "unknown"
SHORT = 24  # letters of a dataset's name that are shown
ONCE = ("tables", "figures", "report")
SOURCE = ("dataset", "images", "download", "unpacked", "prepared", "while preparing", "sizes are")
MADE = ("dataset", "trainings", "parameters", "weights", "checkpoints", "cells", "samples", "scratch")
WIDTH = 100  # columns
LEGEND = (
    "Prepared arrays, weights and samples are kept in results/store; while preparing is the most that lies there "
    "meanwhile. Sizes that are from memory may be off. Parameters: without label embedding. Weights: with snapshots "
    "and further averages. Checkpoints: of one training while it runs. Cells: sampled sets, one for each training and "
    "number of network calls. Scratch: in work/, chains of the errors, features of scored images (with Inception's, "
    "if its weights are there) and samples of snapshots, all of which may be deleted at any time."
)


@dataclass(frozen=True)
class Needs:
    """Bytes and counts of one dataset and all that is trained on it; None: not known.

    `source` is what `data.sizes.needs` says (empty where the recipe does not), `why` the reason where that is nothing.
    `latents` is a sentence about autoencoder and latents, empty where pixels are trained on.
    """

    name: str
    source: dict[str, Any]
    why: str
    trainings: int
    cells: int
    parameters: list[int] | None
    weights: int | None
    checkpoints: int | None
    samples: int | None
    chains: int | None
    features: int
    snapshots: int | None
    latents: str = ""
    latent_size: int | None = 0
    files: str = ""  # where the published files lie, which two datasets may share

    @property
    def scratch(self) -> int | None:
        """Bytes in work/: chains, features and the samples of snapshots."""
        return _sum((self.chains, self.features, self.snapshots))


def jobs(plan: Plan) -> dict[str, int]:
    """Number of jobs of every rule, nothing being there yet; a rule without jobs is left out."""
    found = Counter(config["stage"] for _, config in plan.stage_configs())
    return {**found, **dict.fromkeys(ONCE, 1), **({"track": 1} if plan.tracked else {})}


def datasets(plan: Plan) -> list[Needs]:
    """What every dataset of a plan needs."""
    return [_needs(plan, name) for name in plan.experiment.datasets]


def _needs(plan: Plan, name: str) -> Needs:
    dataset = plan.experiment.datasets[name]
    source, why = _source(dataset.recipe, dataset.holdout)
    images_shape, shape = image_shape(dataset.recipe), _shape(dataset)
    classes = 1  # a label is one more vector of the embedding, which is little
    here = [i for i in plan.instances if i.dataset == name]
    trained, cells = _distinct(here), _cells(plan, here)
    errors, pixels = plan.experiment.errors, prod(images_shape) if images_shape else None
    numbers = prod(shape) if shape else None
    sizes = _parameters(trained, shape, classes) if shape else None
    images = sum(s.images for s, _ in cells)
    scored = plan.experiment.scores.sets * sum(plan.scored(name, s) for s, _ in cells if s.scored)
    points = _snapshots(plan, trained)
    stored = sum(min(errors.times, nfe + 1) for _, nfe in cells) if isinstance(errors.times, int) else 0
    return Needs(
        name,
        source,
        why,
        trainings=len(trained),
        cells=len(cells),
        parameters=sorted(set(sizes)) if sizes is not None else None,
        weights=sum(map(mul, sizes, map(_files, trained))) * NUMBER if sizes is not None else None,
        checkpoints=max(map(mul, sizes, map(_state, trained)), default=0) * CHECKPOINTS if sizes is not None else None,
        samples=images * pixels if pixels is not None else None,
        chains=stored * errors.chains * numbers * NUMBER if numbers is not None else None,
        features=(scored + points) * _width(plan) * NUMBER,
        snapshots=points * pixels if pixels is not None else None,
        latents=_latents(dataset, source, images_shape, shape),
        latent_size=_latent_size(dataset, source, shape),
        files=str(dataset.recipe.get("path", dataset.recipe["name"])),
    )


def _files(one: Instance) -> int:
    """Files of weights that a training leaves: the main average, further ones, snapshots."""
    return 1 + len(one.run.training.averages) + len(one.run.training.snapshot_steps)


def _state(one: Instance) -> int:
    """Bytes of a parameter in a checkpoint."""
    return STATE + len(one.run.training.averages) * NUMBER


def _snapshots(plan: Plan, instances: Iterable[Instance]) -> int:
    """Images that are drawn at the snapshots of all trainings."""
    return sum(
        len(one.run.training.snapshot_steps) * plan.scored(one.dataset, plan.experiment.sampling[name], progress=True)
        for one in instances
        for name in progress.samplings(plan, one)
    )


def _width(plan: Plan) -> int:
    """Features of a scored image: of the classifier, of Inception, and of further extractors."""
    from pipeline_lib.scores.pretrained import KNOWN

    scores = plan.experiment.scores
    return scores.classifier.features + INCEPTION + sum(KNOWN[name].dim for name in scores.extractors)


def _parameters(instances: Sequence[Instance], shape: tuple[int, int, int], classes: int) -> list[int]:
    """Of every instance; equal networks are built once, since building takes most of the time of a plan."""
    from pipeline_lib.networks.trained import parameters  # torch counts them; a wrong configuration ends before that

    found: dict[str, int] = {}
    keys = [json.dumps([i.run.network, i.run.diffusion.learned_variance], sort_keys=True) for i in instances]
    for key, one in zip(keys, instances, strict=True):
        if key not in found:
            found[key] = parameters(one.run, shape, classes)
    return [found[key] for key in keys]


def latent_shape(autoencoder: dict[str, Any], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C,H,W) of the latents of images (C,H,W); raises BadConfig where the autoencoder does not fit them."""
    _, options = load_part("networks/autoencoders", autoencoder)
    return options.latent_shape(shape)


def _latents(
    dataset: Dataset, source: dict[str, Any], shape: tuple[int, int, int] | None, latent: tuple[int, int, int] | None
) -> str:
    if not dataset.autoencoder or not shape or not latent:
        return ""
    from pipeline_lib.networks.latent_space import parameters

    sides, disk = "x".join(map(str, latent)), size(_latent_size(dataset, source, latent))
    weights = _millions(parameters(dataset.autoencoder, shape[0]))
    return f"is trained on latents ({sides}, {disk}) of an autoencoder with {weights} parameters."


def _latent_size(dataset: Dataset, source: dict[str, Any], latent: tuple[int, int, int] | None) -> int | None:
    """Bytes of all latents; 0 where pixels are trained on."""
    if not dataset.autoencoder:
        return 0
    return (source["count"] - dataset.holdout) * prod(latent) * NUMBER if source and latent else None


def _source(recipe: dict[str, Any], holdout: int) -> tuple[dict[str, Any], str]:
    try:
        found = needs(recipe, holdout)
    except BadData as missing:
        return {}, str(missing)
    return found, "" if found else f"the recipe {recipe['name']} does not say how large it is."


def _distinct(instances: Iterable[Instance]) -> list[Instance]:
    """Equal trainings are trained, sampled and measured once."""
    return list({i.training: i for i in instances}.values())


def _cells(plan: Plan, instances: Iterable[Instance]) -> list[tuple[Sampling, int]]:
    """(sampling, calls) of every sampled set. Equal trainings may be drawn from by other samplings, or by the same."""
    found: dict[tuple[str, str, int], tuple[Sampling, int]] = {}
    for one in instances:
        for sampling in plan.samplings_of(one).values():
            drawn = {**sampling.drawn(), **sampling.sought(), "nfe": None}
            key = one.training, json.dumps(drawn, sort_keys=True)
            found |= {(*key, nfe): (sampling, nfe) for nfe in sampling.nfe}
    return list(found.values())


def content(plan: Plan) -> dict[str, Any]:
    """What `text` says, for programs: bytes, counts, minutes; null is unknown."""
    found, runs = datasets(plan), plan.instances
    download, unpacked, kept, checkpoints, scratch = _bytes(found)
    summed = {key: _sum(getattr(one, key) for one in found) for key in ("trainings", "cells", "weights", "samples")}
    disk = {"download": download, "unpacked": unpacked, "kept": kept, "checkpoints": checkpoints}
    disk |= {"scratch": scratch, "all": in_all(found)}
    training = {
        "runs": len(runs),
        "steps": max((one.run.training.steps for one in runs), default=0),
        "minutes_of_a_job": plan.train_minutes,
        "hours": [asdict(one) for one in measured.hours(_left(plan), plan.experiment.runtime.processes)],
        "retries": retries(plan),
        "notes": plan.differences,
    }
    return {
        "experiment": plan.name,
        "title": plan.experiment.title,
        "source": plan.source,
        "datasets": [{**asdict(one), "scratch": one.scratch} for one in found],
        "all": {**summed, "scratch": _sum(one.scratch for one in found), "disk": disk},
        "training": training if runs else None,
        "jobs": jobs(plan),
    }


def text(plan: Plan) -> str:
    """The plan for the terminal, in at most 100 columns."""
    found = datasets(plan)
    title = plan.experiment.title
    parts = [fill(f"{plan.name}{f': {title}' if title else ''} ({plan.source})", WIDTH, break_on_hyphens=False) + "\n"]
    if found:
        parts += [columns(SOURCE, [_source_row(one) for one in found])]
        parts += [f"{fill(f'{_short(one.name)}: {one.why}', WIDTH)}\n" for one in found if one.why]
        parts += [f"{fill(f'{_short(one.name)} {one.latents}', WIDTH)}\n" for one in found if one.latents]
        parts += [columns(MADE, [*map(_made_row, found), _total(found)]), f"{fill(LEGEND, WIDTH)}\n"]
        parts += [f"{fill(_disk(found), WIDTH)}\n"]
    if plan.instances:
        parts += [_training(plan), *(f"{fill(f'note: {said}', WIDTH)}\n" for said in plan.differences)]
    parts += [_jobs(plan)]
    return "\n".join(parts)


def _source_row(one: Needs) -> list[str]:
    source = one.source
    images = f"{source['count']:,}" if source else UNKNOWN
    sizes = [size(source.get(key)) for key in ("download", "source", "prepared", "preparing")]
    return [_short(one.name), images, *sizes, source.get("known", UNKNOWN)]


def _made_row(one: Needs) -> list[str]:
    sizes = UNKNOWN if one.parameters is None else " to ".join(_millions(n) for n in _ends(one.parameters))
    weights, checkpoints, samples, scratch = map(size, (one.weights, one.checkpoints, one.samples, one.scratch))
    return [_short(one.name), f"{one.trainings:,}", sizes, weights, checkpoints, f"{one.cells:,}", samples, scratch]


def _total(found: Sequence[Needs]) -> list[str]:
    trainings, cells = (f"{sum(getattr(one, key) for one in found):,}" for key in ("trainings", "cells"))
    weights, samples, scratch = (size(_sum(getattr(o, k) for o in found)) for k in ("weights", "samples", "scratch"))
    return ["all", trainings, "", weights, "", cells, samples, scratch]


def _disk(found: Sequence[Needs]) -> str:
    """Everything that is downloaded and kept, in one sentence."""
    download, unpacked, kept, checkpoints, scratch = map(size, _bytes(found))
    return (
        f"In all: {download} to download ({unpacked} unpacked), {kept} of arrays, weights and samples, {checkpoints} "
        f"of checkpoints for each training that runs at once, and {scratch} of scratch."
    )


def in_all(found: Sequence[Needs]) -> int | None:
    """Bytes that everything takes at most, trainings one at a time, what is there already included; None: not known."""
    return _sum(_bytes(found))


def _bytes(found: Sequence[Needs]) -> tuple[int | None, ...]:
    """To download, unpacked, kept, of checkpoints of the largest training, and of scratch.

    Files that two datasets read count once.
    """
    once = {(one.files, one.source.get("download")): one.source for one in found}.values()
    kept = [n for one in found for n in (one.source.get("prepared"), one.latent_size, one.weights, one.samples)]
    fetched = [_sum(one.get(key) for one in once) for key in ("download", "source")]
    states = [one.checkpoints for one in found]
    largest = None if None in states else max((n for n in states if n is not None), default=0)
    return (*fetched, _sum(kept), largest, _sum(one.scratch for one in found))


def _equal(plan: Plan) -> str:
    """Why there are more train jobs than trainings; empty where there are not."""
    runs, trainings = len(plan.instances), len(_distinct(plan.instances))
    if runs == trainings:
        return ""
    return (
        f" {runs - trainings} of the {runs} train jobs only point to a training: another run of the same dataset has "
        "the same configuration and seed, and equal runs are trained once."
    )


def _training(plan: Plan) -> str:
    minutes, steps = plan.train_minutes, max(one.run.training.steps for one in plan.instances)
    said = (
        f"The longest training has {steps:,} steps and ends within one job of {minutes:,} min at "
        f"{steps / minutes / 60:.3g} steps/s or more; else it goes on in the next job. The speed depends on the "
        f"machine.{_equal(plan)}"
    )
    return "\n".join(fill(one, WIDTH) for one in (said, _hours(plan), _retries(plan))) + "\n"


def _hours(plan: Plan) -> str:
    """What the trainings still take, where finished ones in the store tell how long a step is."""
    trained, left = _steps_done(plan), _left(plan)
    if not left:
        return "hours: none; all trainings have ended."
    found = measured.hours(left, plan.experiment.runtime.processes)
    if not found:
        known = "not known; no training of these methods and networks has ended in results/store yet"
        return f"hours: {known}.{_begun(trained)}"
    parts = [
        f"{one.hours:.3g} h on {one.device} for {one.trainings} of {len(left)} trainings (median step of up to "
        f"{one.measured} finished in results/store)"
        for one in found
    ]
    return f"hours, devices times wall time: {'; '.join(parts)}.{_begun(trained)}"


def _done(plan: Plan, one: Instance) -> int:
    """Steps of a training that are done and kept; 0 too where what it is trained on is not there yet."""
    if _up_to_date(plan, one):
        return one.run.training.steps
    try:
        data, *init = map(Manifest.load, [plan.trained_on(one), *plan.init(one)])
        store = store_of(one.config, data, *init)
        return one.run.training.steps if store.finished() else steps_done(store.folder)
    except BadData:
        return 0


def _up_to_date(plan: Plan, one: Instance) -> bool:
    """Whether the workflow has its result and does not ask for it again, whatever version of the code made it."""
    home = plan.root / one.path / "train"
    config, inputs = home / "config.json", map(Path, [plan.trained_on(one), *plan.init(one)])
    try:
        made = (home / "manifest.json").stat().st_mtime_ns
        newer = any(path.stat().st_mtime_ns > made for path in (config, *inputs))
        return not newer and json.loads(config.read_text())["config"] == one.config
    except (OSError, ValueError, KeyError):
        return False


def _begun(trained: Sequence[tuple[Instance, int]]) -> str:
    """What is not counted since it is done; empty where nothing is."""
    totals = [(done, one.run.training.steps) for one, done in trained]
    ended = sum(done >= steps for done, steps in totals)
    begun = [(done, steps) for done, steps in totals if 0 < done < steps]
    said = [f"{ended} of {len(totals)} have ended"] if ended else []
    if begun:
        done, steps = (sum(counts) for counts in zip(*begun, strict=True))
        said += [f"{len(begun)} {'has' if len(begun) == 1 else 'have'} begun: {done:,} of {steps:,} steps done"]
    return f" Not counted: {'; '.join(said)}." if said else ""


def _steps_done(plan: Plan) -> list[tuple[Instance, int]]:
    """The different trainings, with the steps of each that are done and kept."""
    return [(one, _done(plan, one)) for one in _distinct(plan.instances)]


def _left(plan: Plan) -> list[tuple[Run, tuple[int, int, int] | None, int]]:
    """Runs that have not ended, the shape of what each is trained on, and the steps that are left."""
    shapes = {name: _shape(plan.experiment.datasets[name]) for name in plan.experiment.datasets}
    return [
        (one.run, shapes[one.dataset], one.run.training.steps - done)
        for one, done in _steps_done(plan)
        if done < one.run.training.steps
    ]


def _shape(dataset: Dataset) -> tuple[int, int, int] | None:
    """(C,H,W) of what diffusion is trained on: pixels or latents; None: not known."""
    images = image_shape(dataset.recipe)
    return latent_shape(dataset.autoencoder, images) if dataset.autoencoder and images else images


def retries(plan: Plan) -> int | None:
    """How often a training must be submitted again to end: once for each further job, and `SPARE` for faults.

    None where runtime.train_hours does not say how long the longest one takes.
    """
    hours = plan.experiment.runtime.train_hours
    return None if hours is None else ceil(60 * hours / usable(plan.train_minutes)) - 1 + SPARE


def _retries(plan: Plan) -> str:
    count, hours = retries(plan), plan.experiment.runtime.train_hours
    if count is None:
        return "retries: set runtime.train_hours to the hours it takes to see how many the profile of a cluster needs."
    return (
        f"retries: {count} in the profile (or --retries {count}): {hours:g} h take {count - SPARE + 1} jobs of "
        f"{plan.train_minutes:,} min, and {SPARE} more are for faults."
    )


def _jobs(plan: Plan) -> str:
    """Jobs by rule, as many in a line as fit."""
    counts = jobs(plan)
    listed = ", ".join(f"{rule}\N{NO-BREAK SPACE}{count:,}" for rule, count in counts.items())
    lines = fill(f"jobs ({sum(counts.values()):,}): {listed}", WIDTH, subsequent_indent="  ")
    return lines.replace("\N{NO-BREAK SPACE}", " ") + "\n"


def _sum(values: Iterable[int | None]) -> int | None:
    listed = list(values)
    return None if None in listed else sum(v for v in listed if v is not None)


def size(count: int | None) -> str:
    """Bytes as 1.23 GB; powers of ten, as disks are sold."""
    if count is None:
        return UNKNOWN
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * scale:
            return f"{f'{count / scale:#.3g}'.rstrip('.')} {unit}"
    return f"{count} B"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _ends(values: Sequence[int]) -> Sequence[int]:
    return values if len(values) == 1 else (values[0], values[-1])


def _short(name: str) -> str:
    return name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"
