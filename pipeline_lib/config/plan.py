"""From an experiment to its instances, their resolved stage configurations, and the files that the workflow wants.

This module runs whenever the Snakefile is parsed, so it imports neither torch nor pandas and writes a file only where
its content differs: the files are inputs of rules, and a rewritten one would rerun everything below it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_lib import registry
from pipeline_lib.config import averages, compared, progress, tuned
from pipeline_lib.config.base import load_part, parse, unmeasured
from pipeline_lib.config.layout import rows_at_once
from pipeline_lib.config.load import merge, read
from pipeline_lib.config.models import EMA, Diffusion, Experiment, Method, Run, Sampling, Variant, parse_experiment
from pipeline_lib.config.spacings import visited
from pipeline_lib.config.tuned import refuse_moved_steps
from pipeline_lib.exits import BadConfig, TryAgain
from pipeline_lib.records.files import holds, write_text

CORRECTION = "samplers/corrections"
LATENT_STAGES = ("autoencoder", "latents")  # of datasets that have an autoencoder
RESERVED = {
    "experiment": {"store", "reference", "data", "fid"},
    "dataset": {"tables", "figures", "config", "tracking", "analytic"},
    "method": {"data", "autoencoder", "latents", "classifier", "reference", "bandwidths", "controls"},
    "sampling": {"train"},
}


@dataclass(frozen=True)
class Instance:
    """One training: where it stands in the experiment and its resolved configuration."""

    dataset: str
    method: str
    variant: str
    seed: int
    run: Run
    init: str | None = None  # path of the instance whose weights it starts from

    @property
    def path(self) -> str:
        """Folder below results/<experiment>."""
        return f"{self.dataset}/{self.method}/{self.variant}/s{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of its training."""
        return {**self.run.model_dump(mode="json"), "seed": self.seed}

    @property
    def training(self) -> str:
        """Equal where the same weights come out: such runs are trained once, and share a place in the store."""
        return json.dumps([self.dataset, self.config, self.init], sort_keys=True)


class Plan:
    """An experiment resolved: instances, stage configurations, targets."""

    def __init__(self, experiment: Experiment, source: str = "") -> None:
        self.experiment = experiment
        self.source = source
        self.root = Path("results") / experiment.experiment
        _refuse_reserved(experiment)
        self.instances = list(_instances(experiment))
        self._by_path = {one.path: one for one in self.instances}
        self._sampled = {method: experiment.sampled(method) for method in experiment.methods}
        _check_starts(self.instances)
        _check_layouts(self)
        compared.check_published(experiment)
        compared.check_names(experiment)
        self.comparisons = compared.comparisons(experiment, self.instances)
        self.sweeps = compared.sweeps(experiment, self.instances)
        _check_sampled(experiment)
        _check_sampling(self)
        _check_weights(self)
        progress.check(self)
        _check_guides(self)
        tuned.check(self)
        _check_labels(self)
        _check_latents(self)
        _check_counts(self)
        _check_forward(experiment)

    @property
    def name(self) -> str:
        return self.experiment.experiment

    def stage_configs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(folder below the experiment, resolved configuration) of every instance and stage."""
        exp, runtime = self.experiment, self.experiment.runtime
        scored = {k: getattr(exp.scores, k) for k in ("samples", "extrapolate")}
        known = {k: getattr(exp.scores, k) for k in ("inception_weights", "extractors")}
        for name, dataset in exp.datasets.items():
            data = {"recipe": dataset.recipe, "holdout": dataset.holdout}
            yield f"{name}/data", stage("data", data)
            if dataset.autoencoder:
                operation = {"checkpoint_minutes": runtime.checkpoint_minutes}
                yield f"{name}/autoencoder", stage("autoencoder", dataset.autoencoder, operation)
                yield f"{name}/latents", stage("latents", {})
            learned = {**exp.scores.classifier.model_dump(mode="json"), "dataset": name}
            yield f"{name}/classifier", stage("classifier", learned)
            forward = exp.errors.forward or exp.errors.chains
            yield f"{name}/bandwidths", stage("bandwidths", {"seed": exp.errors.seed}, {"forward": forward})
            yield f"{name}/reference", stage("reference", {**known, "statistics": dataset.statistics})
            yield f"{name}/controls", stage("controls", scored)
        for name, config in self._analytic_configs():
            yield name, config
        batch = {"batch": runtime.sample_batch}
        cells: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        on_the_way: dict[tuple[str, bool], dict[str, Any]] = {}
        for one in self.instances:
            operation = {k: getattr(runtime, k) for k in ("checkpoint_minutes", "log_every", "grid_every")}
            if runtime.micro_batch:
                operation["micro_batch"] = runtime.micro_batch
            yield f"{one.path}/train", stage("train", one.config, operation)
            for name, sampling in self.samplings_of(one).items():
                latent = bool(exp.datasets[one.dataset].autoencoder)
                if (name, latent) not in cells:
                    cells[name, latent] = list(self._cell_configs(sampling, latent))
                for config in cells[name, latent]:
                    yield f"{one.path}/{name}/{config['stage']}", config
                if name in progress.samplings(self, one):
                    if (name, latent) not in on_the_way:
                        scored_at = progress.config(exp, sampling, _drawn(sampling, latent))
                        on_the_way[name, latent] = stage("progress", scored_at, batch)
                    yield f"{one.path}/{name}/progress", on_the_way[name, latent]

    def _cell_configs(self, sampling: Sampling, latent: bool) -> Iterator[dict[str, Any]]:
        """Stage configurations of a sampled run: the same for all that are trained on pixels, or on latents."""
        exp, batch = self.experiment, {"batch": self.experiment.runtime.sample_batch}
        drawn, sought = _drawn(sampling, latent), sampling.sought()
        measured = {k: v for k, v in drawn.items() if k != "images"}
        if sampling.needs_moments:
            keys = ("sampler", "spacing", "nfe", "seed", "weights", "precision", "clip_x0")
            asked = {k: drawn[k] for k in keys if k in drawn}
            asked["corrections"] = [one for one in drawn["corrections"] if unmeasured(CORRECTION, one)]
            yield stage("moments", asked, batch)
        if sampling.tuning:
            yield stage("tune", {**measured, **sought}, batch)
        yield stage("sample", {**drawn, **sought}, batch)
        errors = {**exp.errors.model_dump(mode="json"), "anatomy": exp.anatomy.model_dump(mode="json")}
        yield stage("errors", {"sampling": {**measured, **sought}, **errors}, batch)
        several = {"sets": exp.scores.sets} if exp.scores.sets > 1 else {}
        scored = {k: getattr(exp.scores, k) for k in ("samples", "extrapolate")}
        if sampling.scored:
            yield stage("scores", {**scored, **several})

    def _analytic_configs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        analytic = self.experiment.analytic
        if analytic is None:
            return
        for name, problem in analytic.problems.items():
            both = {"problem": problem.model_dump(mode="json"), "seed": analytic.seed}
            yield f"analytic/{name}/exact", stage("exact", both)
            for kind in ("coverage", "leak", "corrections"):
                options = getattr(analytic, kind).model_dump(mode="json")
                yield f"analytic/{name}/{kind}", stage(kind, {**both, kind: options})

    def summary(self) -> dict[str, Any]:
        """What tables, figures and the report need to know: labels, cells to expect, checks."""
        exp = self.experiment
        return {
            "experiment": self.name,
            "title": exp.title or self.name,
            "source": self.source,
            "datasets": list(exp.datasets),
            "recipes": {name: dataset.recipe["name"] for name, dataset in exp.datasets.items()},
            "latent": [name for name, dataset in exp.datasets.items() if dataset.autoencoder],
            "methods": {
                name: {
                    "label": method.label or name,
                    "samplings": list(exp.sampled(name)),
                    "variants": {
                        v: {"preset": x.preset, "control": x.control, "published": x.published, "family": x.family}
                        for v, x in method.variants.items()
                    },
                }
                for name, method in exp.methods.items()
            },
            "samplings": {
                name: {**s.model_dump(mode="json"), "guide": s.guide, "family": s.family, "moments": s.needs_moments}
                for name, s in exp.sampling.items()
            },
            "instances": [
                {k: getattr(i, k) for k in ("dataset", "method", "variant", "seed", "path", "init")}
                for i in self.instances
            ],
            "analytic": exp.analytic.model_dump(mode="json") if exp.analytic else None,
            "comparisons": self.comparisons,
            "sweeps": self.sweeps,
            "costs": compared.costs(exp, self.instances),
            "progress": self.progressed,
            "averages": self.averages,
            "checks": [c.model_dump(mode="json") for c in exp.checks],
            "errors": exp.errors.model_dump(mode="json"),
            "anatomy": exp.anatomy.model_dump(mode="json"),
            "tracking": exp.tracking.model_dump(mode="json"),
        }

    def write(self, claim: bool = True) -> None:
        """Write all stage configurations, each only if it differs; `claim`: this file owns the experiment from now on.

        Raises BadConfig where another configuration file owns the experiment of this name, and TryAgain where something
        would change while another Snakemake runs here.
        """
        owner = self.root / "config" / "source.json"
        if self.source and owner.is_file():
            other = json.loads(owner.read_text())["source"]
            if other != self.source and Path(other).is_file():
                raise BadConfig(
                    f"experiment '{self.name}' belongs to {other}; give {self.source} another name under 'experiment', "
                    f"or remove {owner} to hand it over."
                )
        summary = json.dumps(self.summary(), indent=1) + "\n"  # in the order of the file, which is that of the tables
        files = {owner: _json({"source": self.source})} if claim else {}
        files[self.root / "config" / "experiment.json"] = summary
        configs = list(self.stage_configs())
        texts = {id(config): _json(config) for config in {id(one): one for _, one in configs}.values()}  # many are one
        files |= {self.root / folder / "config.json": texts[id(config)] for folder, config in configs}
        changed = {path: text for path, text in files.items() if not holds(path, text)}
        if changed and (locked := next(Path(".snakemake/locks").glob("*"), None)):
            raise TryAgain(
                f"another Snakemake works in this folder ({locked}), and the configuration must not change under its "
                "jobs: wait for it, or run `snakemake --profile profiles/local --unlock` if it was killed."
            )
        for path, text in changed.items():
            write_text(path, text, sync=False)  # thousands; what is lost is written at the next start

    @property
    def differences(self) -> list[str]:
        """Sentences on what is compared and differs in more than it should; the tables say them too."""
        found = (one["differences"] for one in [*self.comparisons.values(), *self.sweeps.values()])
        return list(dict.fromkeys(sentence for sentences in found for sentence in sentences))

    def records(self, name: str) -> list[str]:
        """Paths of the records `<name>.parquet` (errors, trends, influences, anatomy, scores) of all sampled runs."""
        stage_name = name if name == "scores" else "errors"
        return [
            f"{self.root}/{one.path}/{sampling}/{stage_name}/{name}.parquet"
            for one in self.instances
            for sampling, about in self.samplings_of(one).items()
            if about.scored or name != "scores"
        ]

    @property
    def progressed(self) -> list[str]:
        """Folders, below the experiment, of the sampled runs whose snapshots are scored."""
        return [f"{one.path}/{name}" for one in self.instances for name in progress.samplings(self, one)]

    @property
    def averages(self) -> dict[str, Any]:
        """Samplings that differ in the average of the weights alone, and half-lives in images of the averages of each
        run that two of them draw from; nothing where there are none."""
        alike = averages.strips({name: s.model_dump(mode="json") for name, s in self.experiment.sampling.items()})
        drawn = [one for one in self.instances if len(alike.keys() & self.samplings_of(one).keys()) > 1]
        lengths = {one.path: averages.halflives(one.run.training) for one in drawn}
        return {"alike": alike, "halflives": lengths} if lengths else {}

    @property
    def progress(self) -> list[str]:
        """Paths of the records of scores against the progress of training."""
        return [f"{self.root}/{place}/progress/progress.parquet" for place in self.progressed]

    def samplings_of(self, one: Instance) -> dict[str, Sampling]:
        """The samplings that draw from a run, by name."""
        return self._sampled[one.method]

    def manifests(self, stage_name: str) -> list[str]:
        """Paths of the manifests of a stage over all instances (train) or sampled runs (sample)."""
        if stage_name == "train":
            return [f"{self.root}/{one.path}/train/manifest.json" for one in self.instances]
        drawn = [f"{one.path}/{sampling}" for one in self.instances for sampling in self.samplings_of(one)]
        return [f"{self.root}/{place}/{stage_name}/manifest.json" for place in drawn]

    def made_once(self, *stages: str) -> list[str]:
        """Paths of the manifests of these stages of every dataset that has them."""
        return [
            f"{self.root}/{name}/{s}/manifest.json"
            for name, dataset in self.experiment.datasets.items()
            for s in stages
            if dataset.autoencoder or s not in LATENT_STAGES
        ]

    def controls(self) -> list[str]:
        """Paths of the floor and ceiling records of every dataset."""
        return [f"{self.root}/{name}/controls/scores.parquet" for name in self.experiment.datasets]

    def known_answers(self, name: str) -> list[str]:
        """Paths of the records `<name>.parquet` (exact, coverage, leak, corrections) of all analytic problems."""
        analytic = self.experiment.analytic
        problems = analytic.problems if analytic else ()
        return [f"{self.root}/analytic/{problem}/{name}/{name}.parquet" for problem in problems]

    @property
    def tables(self) -> list[str]:
        """Names of the tables that the experiment has."""
        trained = (
            [
                "scores",
                "score_difference",
                "cumulative_error",
                "cumulative_error_difference",
                "sampling_difference",
                "trends",
                "costs",
                "costs_relative",
                "samplings",
            ]
            if self.instances
            else []
        )
        analytic = ["theory", "exact", "coverage", "leak", "corrections"] if self.experiment.analytic else []
        trained += ["tuning", "tuned"] if self.trials else []
        trained += ["progress", "equal_costs"] if self.progressed else []
        trained += ["averages"] if self.averages else []
        trained += ["anatomy"] if self.instances and self.experiment.anatomy.measures else []
        return [*trained, *self.comparisons, *self.sweeps, *analytic]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that the experiment always has."""
        controlled = any(_has_before(i.method, self._variant(i)) for i in self.instances)
        trained = ["fig2", *(["fig3"] if controlled else []), "training", *self.sweeps] if self.instances else []
        trained += ["tuning"] if self.trials else []
        trained += ["progress"] if self.progressed else []
        trained += ["averages"] if self.averages else []
        if self.instances and self.experiment.anatomy.measures:
            trained += [f"anatomy-{dataset}" for dataset in self.experiment.datasets]
        return trained + (["theory", "leak", "corrections"] if self.experiment.analytic else [])

    @property
    def tracked(self) -> bool:
        """Whether there are runs to push to MLflow."""
        return self.experiment.tracking.enabled and bool(self.instances)

    def pattern(self, wildcard: str) -> str:
        """A regular expression of the known values of a wildcard, so that a misspelt target ends at once."""
        values = {
            "experiment": [self.name],
            "dataset": list(self.experiment.datasets),
            "method": list(self.experiment.methods),
            "variant": [i.variant for i in self.instances],
            "seed": [str(i.seed) for i in self.instances],
            "sampling": list(self.experiment.sampling),
            "problem": list(self.experiment.analytic.problems) if self.experiment.analytic else [],
        }[wildcard]
        return "|".join(v.replace(".", r"\.") for v in dict.fromkeys(values)) or "(?!)"  # matches nothing

    def threads(self, wildcards: Any) -> int:
        """Threads of one training job, over its processes."""
        return self._instance(wildcards).run.training.threads * self.experiment.runtime.processes

    def given(self, *names: str) -> Callable[[Any], dict[str, list[str] | str]]:
        """For `unpack`: the inputs of these names at once, since Snakemake takes long to call a function.

        No run waits here for one with an equal training: a changed set of inputs reruns a job with all below it, so
        the name of another run must not be among them.
        """
        functions: dict[str, Callable[[Any], list[str] | str]] = {
            "data": self.trained_on,
            "init": self.init,
            "autoencoder": self.autoencoder,
            "moments": self.moments,
            "guide": self.guide,
            "tuned": self.tuned,
        }

        def ask(wildcards: Any) -> dict[str, list[str] | str]:
            return {name: functions[name](wildcards) for name in names}

        return ask

    def init(self, wildcards: Any) -> list[str]:
        """The manifest of the training whose weights this one starts from; none for most."""
        init = self._instance(wildcards).init
        return [f"{self.root}/{init}/train/manifest.json"] if init else []

    @cached_property
    def equal_runs(self) -> dict[str, list[str]]:
        """By folder of a run, the folders of all others with an equal training; a run without such is not in it."""
        groups: dict[str, list[str]] = {}
        for one in self.instances:
            groups.setdefault(one.training, []).append(f"{self.root}/{one.path}")
        pairs = ((one, [other for other in group if other != one]) for group in groups.values() for one in group)
        return {one: others for one, others in pairs if others}

    def guide(self, wildcards: Any) -> list[str]:
        """The manifest of the training of the noisy classifier that a sampling names; none for most."""
        path = _guide(self._instance(wildcards), self.experiment.sampling[wildcards.sampling])
        return [f"{self.root}/{path}/train/manifest.json"] if path else []

    def trained_on(self, wildcards: Any) -> str:
        """The manifest of what diffusion is trained and measured on: pixels, or latents if there is an autoencoder."""
        latent = self.experiment.datasets[wildcards.dataset].autoencoder
        return f"{self.root}/{wildcards.dataset}/{'latents' if latent else 'data'}/manifest.json"

    def autoencoder(self, wildcards: Any) -> list[str]:
        """The manifest of the dataset's autoencoder; none for most."""
        latent = self.experiment.datasets[wildcards.dataset].autoencoder
        return [f"{self.root}/{wildcards.dataset}/autoencoder/manifest.json"] if latent else []

    def moments(self, wildcards: Any) -> list[str]:
        """The manifest of what the sampler must know of the trained run; none for most."""
        folder = f"{self.root}/{wildcards.dataset}/{wildcards.method}/{wildcards.variant}/s{wildcards.seed}"
        wanted = self.experiment.sampling[wildcards.sampling].needs_moments
        return [f"{folder}/{wildcards.sampling}/moments/manifest.json"] if wanted else []

    def tuned(self, wildcards: Any) -> list[str]:
        """The manifest of the tuning whose constants a sampling uses; none for most."""
        folder = tuned.source(self._instance(wildcards), wildcards.sampling, self.experiment.sampling)
        return [f"{self.root}/{folder}/tune/manifest.json"] if folder else []

    def scored(self, dataset: str, sampling: Sampling, progress: bool = False) -> int:
        """How many images of a cell are scored, or with `progress` of a snapshot: as many as are held out by default,
        and all where none are."""
        exp = self.experiment
        asked = exp.progress.images if progress else None
        return asked or exp.scores.samples or exp.datasets[dataset].holdout or sampling.images

    def classifier_gpus(self, wildcards: Any) -> int:
        """GPUs of the job that trains a dataset's classifier: 1 for the residual network, or where the size of the
        images is not known yet."""
        shape = image_shape(self.experiment.datasets[wildcards.dataset].recipe)
        return int(shape is None or self.experiment.scores.classifier.chosen(shape) == "resnet")

    @property
    def trials(self) -> list[str]:
        """Paths of the trials of all tunings."""
        return [
            f"{self.root}/{one.path}/{name}/tune/trials.parquet"
            for one in self.instances
            for name, sampling in self.samplings_of(one).items()
            if sampling.tuning
        ]

    def _variant(self, one: Instance) -> Variant:
        return self.experiment.methods[one.method].variants[one.variant]

    def _instance(self, wildcards: Any) -> Instance:
        one = f"{wildcards.dataset}/{wildcards.method}/{wildcards.variant}/s{wildcards.seed}"
        return self._by_path[one]

    def memory_mb(self, wildcards: Any, attempt: int) -> int:
        """Memory of a job, growing with its attempts up to four times, since preempted jobs are tried again too."""
        return self.experiment.runtime.memory_mb * min(attempt, 4)

    def attempt(self, wildcards: Any, attempt: int) -> int:
        """The number of this attempt: a later one heeds the marker of a permanent failure."""
        return attempt

    @property
    def train_minutes(self) -> int:
        return self.experiment.runtime.train_minutes

    @property
    def job_minutes(self) -> int:
        return self.experiment.runtime.job_minutes


def load(path: Path | str) -> Plan:
    """The plan of a configuration file; raises BadConfig."""
    path = Path(path)
    source = path.resolve()
    shown = source.relative_to(Path.cwd()) if source.is_relative_to(Path.cwd()) else source
    return Plan(parse_experiment(read(path)), str(shown))


def stage(name: str, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> dict[str, Any]:
    """A stage configuration: `config` decides the result and is its identity, `runtime` only says how to get there."""
    return {"stage": name, "config": config, "runtime": runtime or {}}


def resolve(experiment: Experiment, dataset: str, method: Method, variant: Variant, where: str) -> Run:
    """One run: defaults, then preset, base, dataset, method, variant, each over the one before."""
    module = registry.find("objectives", method.objective)
    presets = getattr(module, "PRESETS", {})
    if variant.preset is not None and variant.preset not in presets:
        raise BadConfig(f"{where}: no preset '{variant.preset}'; {registry.nearest(variant.preset, presets)}")
    values: dict[str, Any] = {"objective": {"name": method.objective}}
    layers = [experiment.base, experiment.datasets[dataset].run, method.run, variant.run]
    for layer in [presets.get(variant.preset, {}), *layers]:
        values = merge(values, layer)
    run = parse(Run, values, where)
    if hasattr(module, "check"):  # what an objective asks of the other sections
        _, options = load_part("objectives", run.objective)
        module.check(options, run, where)
    return run


def _instances(exp: Experiment) -> Iterator[Instance]:
    known = {f"{m}/{v}" for m, method in exp.methods.items() for v in method.variants}
    for dataset in exp.datasets:
        for method_name, method in exp.methods.items():
            for variant_name, variant in method.variants.items():
                where = f"methods.{method_name}.variants.{variant_name}"
                if variant.control is not None and variant.control not in known:
                    raise BadConfig(
                        f"{where}: no control '{variant.control}'; {registry.nearest(variant.control, known)}"
                    )
                for name in variant.datasets or []:
                    if name not in exp.datasets:
                        raise BadConfig(f"{where}: no dataset '{name}'; {registry.nearest(name, exp.datasets)}")
                if variant.datasets is not None and dataset not in variant.datasets:
                    continue
                run = resolve(exp, dataset, method, variant, where)
                for seed in exp.seeds if variant.seeds is None else variant.seeds:
                    init = f"{dataset}/{variant.init_from}/s{seed}" if variant.init_from else None
                    yield Instance(dataset, method_name, variant_name, seed, run, init)


def _check_starts(instances: list[Instance]) -> None:
    """Whoever starts from another run's weights needs that run, with the same network and prediction, and an end."""
    known = {one.path: one for one in instances}
    for one in instances:
        seen, at = [one.path], one
        while at.init:
            if at.init not in known:
                raise BadConfig(f"{at.path} has no run '{at.init}' to start from; {registry.nearest(at.init, known)}")
            at = known[at.init]
            if at.path in seen:
                raise BadConfig(f"{one.path}: init_from goes round in a circle ({' -> '.join([*seen, at.path])}).")
            seen.append(at.path)
            if _learned(at.run) != _learned(one.run):
                raise BadConfig(
                    f"{one.path} starts from {at.path}, which has another network, path or prediction: what those "
                    "weights have learned does not fit. Dropout, objective and training may differ."
                )


def _check_layouts(plan: Plan) -> None:
    """Every training's batch can be cut as the runtime section asks."""
    runtime = plan.experiment.runtime
    for one in plan.instances:
        where = f"{one.dataset}/{one.method}/{one.variant}"
        rows_at_once(one.run, runtime.processes, runtime.micro_batch, where)


def _learned(run: Run) -> dict[str, Any]:
    """What the meaning of a run's weights depends on."""
    return {"diffusion": run.diffusion, **{k: v for k, v in run.network.items() if k != "dropout"}}


def _guide(one: Instance, sampling: Sampling) -> str | None:
    """Path of the instance that guides the samples of this one."""
    return f"{one.dataset}/{sampling.guide}/s{one.seed}" if sampling.guide else None


def _check_guides(plan: Plan) -> None:
    """Whoever is guided needs a classifier of its dataset and seed that knows its x_t; a classifier has no control."""
    known = {one.path: one for one in plan.instances}
    classifiers = sorted({f"{i.method}/{i.variant}" for i in plan.instances if i.run.classifies})
    for name, sampling in plan.experiment.sampling.items():
        for one in _drawn_from(plan, name) if sampling.guide else ():
            guide = known.get(str(_guide(one, sampling)))
            if guide is None or not guide.run.classifies:
                raise BadConfig(
                    f"sampling.{name}: {sampling.guide} is no noisy classifier that is trained on {one.dataset} with "
                    f"seed {one.seed}; {registry.nearest(str(sampling.guide), classifiers)}"
                )
            if _noise(guide.run) != _noise(one.run):
                raise BadConfig(
                    f"sampling.{name}: {sampling.guide} has learned x_t of another path than those of {one.method}/"
                    f"{one.variant}; give both the same diffusion.path, schedule and timesteps."
                )
    for one in plan.instances:
        if one.run.classifies and plan._variant(one).control:
            raise BadConfig(f"methods.{one.method}.variants.{one.variant}: a classifier has no scores, so no control.")


def _noise(run: Run) -> tuple[Any, ...]:
    """What decides x_t on a path with discrete steps, whatever is predicted from it."""
    return run.diffusion.path, run.diffusion.schedule, run.diffusion.timesteps


def _check_labels(plan: Plan) -> None:
    """Classifiers and conditional networks need labels. The train stage says it of datasets that are not known yet."""
    for one in plan.instances:
        official = _official(plan.experiment.datasets[one.dataset].recipe)
        if official and not official.labels and (one.run.classifies or one.run.network["conditional"]):
            raise BadConfig(
                f"{one.dataset}/{one.method}/{one.variant} learns labels, which {one.dataset} has not; leave that out "
                "of the variant's datasets, or switch network.conditional off."
            )


def _has_before(method: str, variant: Variant) -> bool:
    """Whether Fig. 3 shows it: its control is another method, and it is no point of a grid."""
    return variant.control is not None and not variant.control.startswith(f"{method}/") and not variant.family


def _refuse_reserved(exp: Experiment) -> None:
    used = {
        "experiment": [exp.experiment],
        "dataset": list(exp.datasets),
        "method": list(exp.methods),
        "sampling": list(exp.sampling),
    }
    for kind, given in used.items():
        for name in set(given) & RESERVED[kind]:
            raise BadConfig(f"'{name}' cannot be the name of the {kind}: the results keep a folder of that name.")


def _check_sampled(exp: Experiment) -> None:
    """Samplings name methods and controls that there are, and no method is left without a sampling."""
    for name, sampling in exp.sampling.items():
        _check_control(exp, name, sampling)
        for method in sampling.methods or ():
            if method not in exp.methods:
                raise BadConfig(
                    f"sampling.{name}.methods: no method '{method}'; {registry.nearest(method, exp.methods)}"
                )
            if exp.methods[method].classifies:
                raise BadConfig(f"sampling.{name}.methods: {method} is a classifier and draws no images; leave it out.")
    for method, about in exp.methods.items():
        if not about.classifies and not exp.sampled(method):
            raise BadConfig(f"methods.{method}: no sampling draws from it; add it to the methods of one.")


def _check_control(exp: Experiment, name: str, sampling: Sampling) -> None:
    """The control of a sampling is another one, of a number of network calls at least, and draws from its methods."""
    if sampling.control is None:
        return
    others = [other for other in exp.sampling if other != name]
    if sampling.control not in others:
        raise BadConfig(
            f"sampling.{name}: no control '{sampling.control}'; {registry.nearest(sampling.control, others)}"
        )
    control = exp.sampling[sampling.control]
    if not set(sampling.nfe) & set(control.nfe):
        raise BadConfig(f"sampling.{name}: its control {sampling.control} has none of its nfe {sampling.nfe}.")
    for method in exp.methods:
        if name in exp.sampled(method) and sampling.control not in exp.sampled(method):
            raise BadConfig(f"sampling.{name}: its control {sampling.control} does not draw from {method}.")


def _check_sampling(plan: Plan) -> None:
    """A sampler must be able to make so many calls on the path of every run that it draws from, and none has more steps
    than its path."""
    for name, sampling in plan.experiment.sampling.items():
        paths = {i.run.diffusion: i for i in _drawn_from(plan, name)}
        where = f"sampling.{name}"
        module, options = load_part("samplers", sampling.sampler)
        steps = [_steps(sampling, nfe, where) for nfe in sampling.nfe]
        for diffusion, one in paths.items():
            if hasattr(module, "check"):  # what a sampler asks of the path
                module.check(options, diffusion, f"{where} cannot sample {one.method}/{one.variant}")
            if diffusion.path == "vp" and max(steps) > diffusion.timesteps:
                raise BadConfig(
                    f"{where}: nfe {max(sampling.nfe)} is more than the {diffusion.timesteps} steps of "
                    f"{one.method}/{one.variant}."
                )
            for count in steps:
                _check_spacing(sampling, diffusion, count, where)
                for correction in sampling.corrections:
                    corrects, chosen = load_part(CORRECTION, correction)
                    if hasattr(corrects, "check"):
                        corrects.check(chosen, diffusion, count, where)
        refuse_moved_steps(sampling, where)


def _check_weights(plan: Plan) -> None:
    """Every training that a sampling draws from must have kept the average that it asks for."""
    for name, sampling in plan.experiment.sampling.items():
        for one in _drawn_from(plan, name):
            kept = [EMA, *one.run.training.averages]
            if sampling.weights not in kept:
                raise BadConfig(
                    f"sampling.{name}.weights: {one.method}/{one.variant} keeps no average '{sampling.weights}' "
                    f"(training.averages); {registry.nearest(sampling.weights, kept)}"
                )


def _check_spacing(sampling: Sampling, diffusion: Diffusion, steps: int, where: str) -> None:
    """There must be such a grid on the path."""
    if diffusion.path == "vp":
        try:
            visited(sampling.spacing, diffusion.timesteps, steps)
        except BadConfig as error:
            raise BadConfig(f"{where}: {error}") from None
    elif sampling.spacing != "uniform":
        raise BadConfig(
            f"{where}: spacing {sampling.spacing} is for diffusion.path vp; path {diffusion.path} has its own, uniform."
        )


def _drawn_from(plan: Plan, sampling: str) -> list[Instance]:
    return [one for one in plan.instances if sampling in plan.samplings_of(one)]


def _steps(sampling: Sampling, nfe: int, where: str) -> int:
    try:
        return sampling.steps(nfe)
    except BadConfig as error:
        raise BadConfig(f"{where}: {error}") from None


def _check_latents(plan: Plan) -> None:
    """Latents have no range to clip to, and the latent of a mirrored image is not the mirrored latent."""
    latent = {name for name, dataset in plan.experiment.datasets.items() if dataset.autoencoder}
    for name, sampling in plan.experiment.sampling.items():
        clipped = {one.dataset for one in _drawn_from(plan, name)} & latent
        if clipped and sampling.clip_x0 and "clip_x0" in sampling.model_fields_set:
            raise BadConfig(
                f"sampling.{name}: clip_x0 is for pixels, and {min(clipped)} is trained on latents, which have no "
                "range of their own; leave it away."
            )
    for one in plan.instances:
        if one.dataset in latent:
            _check_on_latents(one.run, f"{one.dataset}/{one.method}/{one.variant}")


def _check_on_latents(run: Run, who: str) -> None:
    if run.training.flip:
        raise BadConfig(
            f"{who}: training.flip would mirror latents, which is not what mirrored images have; set it to false."
        )
    if run.objective.get("augment"):
        raise BadConfig(
            f"{who}: objective.augment would turn and stretch latents, which is not what such images have; set it to 0."
        )
    name = run.objective["name"]
    if getattr(registry.find("objectives", name), "NEEDS_PIXELS", False):
        raise BadConfig(f"{who}: objective {name} has a likelihood of pixels with 256 levels, which latents have not.")


def _check_counts(plan: Plan) -> None:
    """What is scored must have been drawn, and what is checked must be sampled."""
    exp = plan.experiment
    for name, sampling in exp.sampling.items():
        for dataset_name in dict.fromkeys(one.dataset for one in _drawn_from(plan, name) if sampling.scored):
            wanted, sets = plan.scored(dataset_name, sampling), exp.scores.sets
            if sets > 1 and not exp.scores.samples and not exp.datasets[dataset_name].holdout:
                raise BadConfig(
                    f"scores.sets: {sets} sets of as many images as are held out of {dataset_name}, which are none; "
                    f"give their size in scores.samples, or set datasets.{dataset_name}.holdout."
                )
            if wanted * sets > sampling.images:
                many = f"{sets} x {wanted}" if sets > 1 else wanted
                raise BadConfig(
                    f"sampling.{name}: images is {sampling.images}, but {many} are scored on {dataset_name} (as many "
                    f"as are held out, or scores.samples); set images to {wanted * sets} or more, or scores.samples to "
                    f"{sampling.images // sets} or fewer."
                )
    known = {nfe for sampling in exp.sampling.values() for nfe in sampling.nfe}
    for check in exp.checks:
        if check.nfe not in known:
            raise BadConfig(f"checks: nfe {check.nfe} is not sampled; it is one of {sorted(known)}.")


def _check_forward(exp: Experiment) -> None:
    """Forward samples are different training images. The bandwidths stage says it of datasets of unknown size."""
    wanted = exp.errors.forward or exp.errors.chains
    for name, dataset in exp.datasets.items():
        images = _images(dataset.recipe)
        if images is not None and wanted > images - dataset.holdout:
            raise BadConfig(
                f"errors: {wanted} forward samples (errors.forward, or errors.chains where that is null) are more than "
                f"the {images - dataset.holdout} training images of {name}; ask for at most so many."
            )


def _drawn(sampling: Sampling, latent: bool) -> dict[str, Any]:
    """What decides the samples; latents have no range to clip to."""
    return {**sampling.drawn(), "clip_x0": False} if latent else sampling.drawn()


def image_shape(recipe: dict[str, Any]) -> tuple[int, int, int] | None:
    """(C,H,W), from the options where they say it, since a folder of images may not be there yet; None: not known."""
    module, options = load_part("data/recipes", recipe)
    side, channels = getattr(options, "resolution", None), getattr(options, "channels", None)
    if side and channels:
        return channels, side, side
    shape: tuple[int, int, int] | None = module.official(options).shape if hasattr(module, "official") else None
    return shape


def _images(recipe: dict[str, Any]) -> int | None:
    """Images of a dataset, held-out ones too, where that is known without a look at any file."""
    _, options = load_part("data/recipes", recipe)
    expected: int | str | None = getattr(options, "expected", "official")
    if not isinstance(expected, str):
        return expected
    official = _official(recipe)
    return official.count if official else None


def _official(recipe: dict[str, Any]) -> Any:
    """The recipe's `Official`, known without a look at any file; None for a user's folder and recipes without one."""
    module, options = load_part("data/recipes", recipe)
    counted = hasattr(options, "path") and not hasattr(options, "expected")
    return None if counted or not hasattr(module, "official") else module.official(options)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
