"""Models of the configuration. Every field has a description: they are the reference of all keys.

A *run* (one training) is described by four sections: diffusion, network, objective, training. An *experiment* crosses
datasets, methods with their variants, and seeds, and says how each trained run is sampled, measured and scored.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from pipeline_lib.config import grids
from pipeline_lib.config.base import Model, load_part, parse, part, unmeasured
from pipeline_lib.config.sampled import SOUGHT
from pipeline_lib.config.spacings import Spacing
from pipeline_lib.exits import BadConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9.-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Kernel = Literal["laplace", "gaussian", "rational-quadratic"]
RunKey = Annotated[str, Field(pattern=r"^[a-z_]+(\.[a-z0-9_]+)+$")]
Partial = dict[str, Any]
CLASSIFIER = "noisy-classifier"  # the objective whose runs guide others
RESIDUAL_FROM = 32  # pixels of the longer side
EMA = "ema"  # name of the average that every training has
MEASURES: list[Any] = [
    *("eps-norm", "mean-bias", "variance", "delta", "leak", "gain", "modular-error", "normality"),
    *("norm-correlation", "shifted-time"),
]

_LEAF = re.compile(r"^[A-Za-z0-9.-]+$")  # what may stand in a name


def positive(value: list[int]) -> list[int]:
    """Channel multipliers that are at least 1."""
    if any(m < 1 for m in value):
        raise ValueError("every channel multiplier must be at least 1")
    return value


def _with_part(values: Any, key: str, kind: str) -> Any:
    """The values with the part under `key` validated; what is no mapping is left to the model to refuse."""
    return {**values, key: _part(kind, values.get(key, {}), key)} if isinstance(values, Mapping) else values


def _part(kind: str, values: Any, key: str) -> dict[str, Any]:
    """A validated part; raises ValueError, to which pydantic adds where the model around the part stands."""
    try:
        return part(kind, values, key)
    except BadConfig as wrong:
        raise ValueError(str(wrong)) from None


def _different_seeds(seeds: list[int] | None) -> list[int] | None:
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0):
        raise ValueError("seeds must be different numbers from 0 on")
    return seeds


def _different(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("a name stands twice")
    return values


def _grid_values(values: list[Any]) -> list[Any]:
    wrong = [v for v in values if not isinstance(v, bool | int | float) and not (isinstance(v, str) and _LEAF.match(v))]
    if not values or wrong:
        raise ValueError("a grid needs a list of numbers, words or true and false")
    if len({grids.shown(v) for v in values}) < len(values):
        raise ValueError("a value stands twice")
    return values


def _rising(values: list[float]) -> list[float]:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError("the values must rise")
    return values


def _empty(value: Any) -> bool:
    return not value


def _with_marginal(values: list[str]) -> list[str]:
    if "marginal" not in values:
        raise ValueError("marginal must be among them: scores, checks and Fig. 2 read it")
    return values


class Diffusion(Model):
    """The Gaussian path x_t = a_t x_0 + s_t eps and what the network predicts on it."""

    path: Literal["vp", "edm", "pfgm"] = Field(
        "vp",
        description="family: vp (a_t^2 + s_t^2 = 1), edm (a = 1, s = t = sigma), or pfgm (edm with the heavy-tailed "
        "noise of PFGM++)",
    )
    schedule: Literal["linear", "cosine", "sigmoid"] = Field("linear", description="beta schedule of a vp path")
    timesteps: int = Field(1000, ge=2, le=100_000, description="T, the number of steps of a trained vp path")
    prediction: Literal["eps", "x0", "v", "edm"] = Field(
        "eps", description="what the network predicts; edm: the preconditioned mixture of x_0 and eps of Karras et al."
    )
    learned_variance: bool = Field(
        False, description="whether the network also places the reverse variance between beta~_t and beta_t"
    )
    sigma_data: float = Field(0.5, gt=0, description="standard deviation of the data that prediction edm assumes")
    sigma_min: float = Field(0.002, gt=0, description="smallest noise level of an edm path's grid")
    sigma_max: float = Field(80.0, gt=0, description="largest noise level of an edm path's grid")
    rho: float = Field(7.0, gt=0, description="exponent of an edm path's grid: even steps in sigma^(1/rho)")
    log_sigma_mean: float = Field(-1.2, description="mean of ln sigma in the training of an edm path")
    log_sigma_std: float = Field(1.2, gt=0, description="standard deviation of ln sigma in the training of an edm path")
    extra_dimensions: int = Field(
        128,
        ge=1,
        description="D of a pfgm path, the dimensions added to those of the data; edm is the limit of large D",
    )

    @model_validator(mode="after")
    def _sigmas_in_order(self) -> "Diffusion":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be smaller than sigma_max {self.sigma_max:g}")
        return self


class Network(Model):
    """What every network takes; the rest is in the options of each."""

    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate inside residual blocks")
    conditional: bool = Field(False, description="whether the network is given the class label")


class Autoencoder(Model):
    """What every autoencoder takes: its layers and its training; the rest is in the options of each."""

    channels: int = Field(32, ge=8, multiple_of=4, description="channels at full resolution")
    channel_mult: Annotated[list[int], AfterValidator(positive)] = Field(
        [1, 2],
        min_length=1,
        description="channel multiplier at each resolution, each half of the one before: n of them shrink the sides by "
        "f = 2^(n-1)",
    )
    res_blocks: int = Field(1, ge=1, description="residual blocks at each resolution; the decoder has one more")
    latent_channels: int = Field(3, ge=1, description="channels of a latent")
    reconstruction: Literal["l1", "l2"] = Field("l1", description="error of a pixel: absolute, or squared")
    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch_size: int = Field(64, ge=1, description="images per step")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam; it falls linearly to zero")
    seed: int = Field(0, ge=0, description="seed of weights, batches and noise")

    @property
    def factor(self) -> int:
        """f, by which the sides shrink."""
        return int(2 ** (len(self.channel_mult) - 1))

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C,H,W) of the latents of images (C,H,W); raises BadConfig where f does not divide the sides."""
        _, height, width = shape
        if height % self.factor or width % self.factor:
            raise BadConfig(
                f"the autoencoder shrinks images by f = {self.factor}, which does not divide {height}x{width}: shorten "
                f"autoencoder.channel_mult, or resize the data to a multiple of {self.factor}."
            )
        return self.latent_channels, height // self.factor, width // self.factor


Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS = (
    "bf16 (convolutions and linear layers of the network in bfloat16, weights and all else in float32), tf32 (these in "
    "TF32), or float32; a CPU takes float32 always"
)


def _usual(precision: str) -> bool:
    return precision == "tf32"  # what torch nearly does if nobody asks, and so no part of a run's identity


class Average(Model):
    """A further average of the weights of one training."""

    decay: float | None = Field(
        None, ge=0, lt=1, description="its decay per update, as ema_decay; 0: the weights themselves"
    )
    halflife_images: float | None = Field(None, gt=0, description="its half-life in images, in place of decay")

    @model_validator(mode="after")
    def _has_one_length(self) -> "Average":
        if (self.decay is None) == (self.halflife_images is None):
            raise ValueError("an average needs either decay or halflife_images")
        return self


def _not_the_main_one(averages: dict[str, Average]) -> dict[str, Average]:
    if EMA in averages:
        raise ValueError(f"'{EMA}' is the average of ema_decay; give this one another name")
    return averages


class Training(Model):
    """Optimisation of one run."""

    steps: int = Field(800_000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=1, description="images per optimiser step, over all devices")
    mmd_group: int | None = Field(
        None, ge=2, description="images that share one t where an objective compares groups; it divides batch_size"
    )
    lr: float = Field(2e-4, gt=0, description="learning rate of Adam")
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="betas of Adam")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay, as in AdamW; 0: Adam")
    warmup_steps: int = Field(5000, ge=0, description="steps of linear learning-rate warm-up")
    lr_decay: Literal["none", "linear"] = Field(
        "none", description="linear: from the end of the warm-up the rate falls to zero at the last step"
    )
    grad_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null switches clipping off")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="decay of the weight average, per update")
    ema_halflife_images: float | None = Field(
        None, gt=0, description="half-life of the weight average in images, in place of ema_decay; null: ema_decay"
    )
    ema_every: int = Field(1, ge=1, description="steps between two updates of the weight average")
    ema_warmup: bool = Field(
        True,
        description="forget early weights: cap the decay at (1 + n) / (10 + n) after n updates, or the half-life at "
        "5 % of the images seen",
    )
    averages: Annotated[dict[Name, Average], AfterValidator(_not_the_main_one)] = Field(
        {},
        exclude_if=_empty,  # what is not asked for is no part of a run's identity
        description="further averages of the weights that are kept in the same training, by name; samplings ask for "
        "them with `weights`. ema_every and ema_warmup hold for them too",
    )
    snapshots: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], AfterValidator(_rising)] = Field(
        [],
        exclude_if=_empty,
        description="shares of the steps at which the averaged weights are kept, rising, for scores against training "
        "progress; no result is ever chosen from them",
    )
    flip: bool = Field(False, description="random horizontal flips")
    precision: Precision = Field(
        "tf32", exclude_if=_usual, description=f"arithmetic of a GPU in training: {PRECISIONS}"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity, since sums depend on it")

    def average(self, name: str = EMA) -> Average:
        """The length of an average, by its name."""
        if name != EMA:
            return self.averages[name]
        images = self.ema_halflife_images
        return Average(halflife_images=images) if images else Average(decay=self.ema_decay)

    def averaged(self, name: str) -> "Training":
        """The same with the length of a further average as that of the main one."""
        one = self.average(name)
        length = {"ema_decay": one.decay or 0.0, "ema_halflife_images": one.halflife_images}
        return self.model_copy(update=length)

    @property
    def snapshot_steps(self) -> list[int]:
        """Steps after which the averaged weights are kept."""
        return [max(1, round(share * self.steps)) for share in self.snapshots]

    @model_validator(mode="after")
    def _snapshots_are_steps_of_their_own(self) -> "Training":
        kept = list(zip(self.snapshots, self.snapshot_steps, strict=True))
        for (share, step), (after, same) in pairwise(kept):
            if step == same:
                raise ValueError(f"snapshots {share:g} and {after:g} of {self.steps} steps are one, {step}: keep one")
        if kept and kept[-1][1] == self.steps:
            raise ValueError(f"snapshot {kept[-1][0]:g} of {self.steps} steps is the end, which is scored anyhow")
        return self

    @model_validator(mode="after")
    def _betas_are_decays(self) -> "Training":
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas {list(self.adam_betas)} must lie in [0, 1)")
        return self

    @model_validator(mode="after")
    def _groups_stay_whole(self) -> "Training":
        group = self.mmd_group
        if group and (group > self.batch_size or self.batch_size % group):
            raise ValueError(
                f"mmd_group {group} does not divide batch_size {self.batch_size}: groups stay whole, so set one of them"
            )
        return self


class Run(Model):
    """Everything that decides the weights of one training, but for data and seed."""

    diffusion: Diffusion = Field(Diffusion(), description="path and prediction")
    network: dict[str, Any] = Field(description="name of the architecture (unet where none is given) and its options")
    objective: dict[str, Any] = Field(description="name of the objective and its options")
    training: Training = Field(Training(), description="optimisation")

    @model_validator(mode="before")
    @classmethod
    def _fill_parts(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(network := values.get("network", {}), Mapping):
            values = {**values, "network": {"name": "unet", **network}}
        return _with_part(_with_part(values, "objective", "objectives"), "network", "networks/architectures")

    @model_validator(mode="after")
    def _prediction_fits(self) -> "Run":
        path, prediction = self.diffusion.path, self.diffusion.prediction
        if (path != "vp") != (prediction == "edm"):
            raise ValueError(
                f"diffusion.prediction {prediction} does not serve path {path}: paths edm and pfgm go with edm"
            )
        objective = self.objective["name"]
        if path == "pfgm" and objective != "pfgmpp" and not objective.endswith(".py"):
            raise ValueError(f"objective {objective} draws Gaussian noise, which path pfgm has not: pfgmpp is its own")
        if path != "vp" and self.diffusion.learned_variance:
            raise ValueError("diffusion.learned_variance is for a path with discrete steps (vp)")
        if self.network["name"] == "encoder" and objective != CLASSIFIER:
            raise ValueError(f"network encoder is a classifier, which objective {objective} cannot train")
        return self

    @property
    def classifies(self) -> bool:
        """Whether it trains a classifier of x_t, which draws no images."""
        return bool(self.objective["name"] == CLASSIFIER)


class Runtime(Model):
    """How a job is run. None of it changes results, so none of it is part of any identity."""

    checkpoint_minutes: float = Field(10, gt=0, description="wall time between two checkpoints")
    log_every: int = Field(100, ge=1, description="steps between two lines of the training history")
    grid_every: int = Field(0, ge=0, description="steps between two sample grids while training; 0: only at the end")
    processes: int = Field(
        1,
        ge=1,
        description="processes that share a training, a sampling or the extraction of features, each with a GPU of its "
        "own if there are any",
    )
    nodes: int = Field(1, ge=1, description="hosts that these processes are spread over, evenly")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="images that a training process takes through the network at once; it adds up gradients until its "
        "share of batch_size is done; null: the whole share",
    )
    sample_batch: int = Field(500, ge=1, description="images per network call when sampling")
    train_minutes: int = Field(1440, ge=1, description="wall-clock limit of a training job, in minutes")
    train_hours: float | None = Field(
        None, gt=0, description="hours of the longest training on your device, for the retries that `plan` prints"
    )
    job_minutes: int = Field(240, ge=1, description="wall-clock limit of every other job, in minutes")
    memory_mb: int = Field(
        4000,
        ge=500,
        description="memory of a job in MB; two to four times as much at later attempts, of a training only after it "
        "ran out of memory",
    )

    @model_validator(mode="after")
    def _nodes_are_filled(self) -> "Runtime":
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} cannot be spread evenly over nodes {self.nodes}")
        return self


class Dataset(Model):
    """A dataset: the recipe that prepares it and what every run on it has in common."""

    recipe: dict[str, Any] = Field(description="name of the recipe and its options")
    holdout: int = Field(0, ge=0, description="images held out of training, for the floor of the scores")
    autoencoder: dict[str, Any] | None = Field(
        None, description="name of the autoencoder in whose latents diffusion is trained, and its options; null: pixels"
    )
    statistics: str | None = Field(
        None,
        description="published statistics of Inception features (.npz with mu and sigma) that FID is measured against; "
        "null: those of the training images",
    )
    run: Partial = Field({}, description="overrides of run sections for every run on this dataset")

    @model_validator(mode="before")
    @classmethod
    def _fill_parts(cls, values: Any) -> Any:
        values = _with_part(values, "recipe", "data/recipes")
        latent = isinstance(values, Mapping) and values.get("autoencoder") is not None
        return _with_part(values, "autoencoder", "networks/autoencoders") if latent else values


class Axis(Model):
    """One key of a grid and its values."""

    key: str = Field(
        pattern=r"^[a-z_]+(\.[a-z0-9_]+)*$",
        description="key of the run sections, such as objective.bootstrap_length, or of a sampling, such as "
        "sampler.eta or weights",
    )
    values: Annotated[list[Any], AfterValidator(_grid_values)] = Field(description="its values, each a variant")


def _axes_differ(axes: dict[str, Axis]) -> dict[str, Axis]:
    keys = [axis.key for axis in axes.values()]
    if len(set(keys)) < len(keys):
        raise ValueError("two axes of the grid have one key, so the names would lie; give each its own")
    return axes


Axes = Annotated[dict[Name, Axis], AfterValidator(_axes_differ)]


class Variant(Model):
    """One named setting of a method, or a grid of them."""

    preset: str | None = Field(None, description="preset of the objective to start from, such as paper or released")
    control: str | None = Field(None, description="'method/variant' that differs in the method alone")
    init_from: str | None = Field(
        None, description="'method/variant' whose averaged weights, of the same dataset and seed, training starts from"
    )
    datasets: list[Name] | None = Field(None, description="the datasets it is trained on; null: all")
    seeds: Annotated[list[int] | None, AfterValidator(_different_seeds)] = Field(
        None, description="training seeds; null: those of the experiment"
    )
    run: Partial = Field({}, description="overrides of run sections")
    published: str | None = Field(
        None,
        description="published row that it reproduces in the first scored sampling of its method, such as "
        "li2024/table1/ddpm; tables show both",
    )
    grid: Axes = Field(
        {},
        description="short names, each with a key and its values: the variant becomes one for every combination, "
        "named after it, such as sweep-L5. The points share what stands in this variant, and take nothing from others",
    )
    _family: str | None = PrivateAttr(None)

    @property
    def family(self) -> str | None:
        """Name of the variant whose grid this one is a point of."""
        return self._family


class Method(Model):
    """A training method: an objective and its variants."""

    objective: str = Field(description="name of the objective, or a path to a user's own .py file")
    label: str | None = Field(None, description="name in tables and figures; null: the key itself")
    run: Partial = Field({}, description="overrides of run sections for all variants")
    variants: dict[Name, Variant] = Field(min_length=1, description="named settings")

    @property
    def classifies(self) -> bool:
        """Whether its runs are classifiers of x_t, which are not sampled."""
        return self.objective == CLASSIFIER


class Transfer(Model):
    """Constants that were tuned for another sampling, number of calls or dataset, used as they are."""

    sampling: Name = Field(description="the sampling whose tuning found them, for the same method, variant and seed")
    nfe: int | None = Field(None, ge=1, description="number of calls that they were tuned for; null: the same")
    dataset: Name | None = Field(None, description="dataset that they were tuned on; null: the same")


class Sampling(Model):
    """One way of drawing samples from trained runs; each number of network calls is a cell of it."""

    sampler: dict[str, Any] = Field(description="name of the sampler and its options")
    methods: Annotated[list[Name], AfterValidator(_different)] | None = Field(
        None,
        min_length=1,
        description="the methods whose runs it draws from, since not every sampler serves every path; null: all but "
        "noisy classifiers",
    )
    spacing: Spacing = Field(
        "uniform",
        description="which t a shorter chain visits: uniform, even steps from T to 1; leading and trailing, even steps "
        "that end at 1 or begin at T; quadratic, even steps in the root of t from 0.8 T to 1 (vp)",
    )
    nfe: list[int] = Field(min_length=1, description="network calls per image, one cell each; T visits every step")
    images: int = Field(50_000, ge=2, description="images drawn in each cell")
    scored: bool = Field(
        True,
        description="whether its images are scored; without, it serves the cumulative error, and a few images to look "
        "at will do",
    )
    weights: Name = Field(
        EMA,
        exclude_if=lambda name: name == EMA,
        description="which average of the weights is sampled: ema, or one of training.averages",
    )
    clip_x0: bool = Field(
        True,
        description="clip predicted x_0 to [-1, 1] at every step; for latents it is off, and true is refused",
    )
    corrections: list[dict[str, Any]] = Field(
        [], description="corrections of each prediction, in their order and before x_0 is clipped: names with options"
    )
    tuning: dict[str, Any] | None = Field(
        None,
        description="how the constants of a correction are found for each run and number of calls, which is then put "
        "before `corrections`: a name with options; null: nothing is tuned",
    )
    transfer: Transfer | None = Field(
        None, description="take the constants that another sampling's tuning found, in place of a tuning of its own"
    )
    precision: Precision = Field(
        "tf32", exclude_if=_usual, description=f"arithmetic of a GPU in sampling: {PRECISIONS}"
    )
    seed: int = Field(0, ge=0, description="seed of the sampling noise, shared by all methods")
    control: Name | None = Field(
        None, description="another sampling of the same runs, which tables compare it with; a grid: its like point"
    )
    published: dict[str, str] = Field(
        {}, description="'method/variant' -> published row that these samples of it reproduce"
    )
    grid: Axes = Field(
        {},
        description="short names, each with a key of this sampling and its values: the sampling becomes one for every "
        "combination, named after it, such as ddim-eta0.2",
    )
    _family: str | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _fill_parts(cls, values: Any) -> Any:
        values = _with_part(values, "sampler", "samplers")
        if isinstance(values, Mapping) and values.get("tuning") is not None:
            values = _with_part(values, "tuning", "tuning")
        if isinstance(values, Mapping) and isinstance(given := values.get("corrections"), list):
            filled = [_part("samplers/corrections", one, f"corrections.{i}") for i, one in enumerate(given)]
            return {**values, "corrections": filled}
        return values

    @model_validator(mode="after")
    def _nfe_positive(self) -> "Sampling":
        if any(n < 1 for n in self.nfe) or len(set(self.nfe)) < len(self.nfe):
            raise ValueError("nfe must be a list of different positive numbers")
        return self

    @model_validator(mode="after")
    def _guided_once(self) -> "Sampling":
        if sum("classifier" in one for one in self.corrections) > 1:
            raise ValueError("two corrections name a classifier; one sampling is guided once")
        return self

    @model_validator(mode="after")
    def _one_source_of_constants(self) -> "Sampling":
        if self.tuning and self.transfer:
            raise ValueError("give either tuning or transfer: constants have one source")
        return self

    @model_validator(mode="after")
    def _moved_means_are_ancestral(self) -> "Sampling":
        if self.sampler["name"] != "ancestral" and any(one.get("form") == "mean" for one in self.corrections):
            raise ValueError("guidance of the mean is for the sampler ancestral: take form eps")
        return self

    def drawn(self) -> dict[str, Any]:
        """What decides the samples, beside constants that are tuned: all but whom they are drawn from, and what they
        are compared with."""
        return self.model_dump(mode="json", exclude={"methods", "control", "published", "grid", "scored", *SOUGHT})

    def sought(self) -> dict[str, Any]:
        """Where tuned constants come from: `tuning`, `transfer`, or nothing."""
        return {k: v for k, v in self.model_dump(mode="json", include=set(SOUGHT)).items() if v is not None}

    @property
    def family(self) -> str | None:
        """Name of the sampling whose grid this one is a point of."""
        return self._family

    @property
    def guide(self) -> str | None:
        """'method/variant' of the noisy classifier that a correction asks for; None for most."""
        return next((one["classifier"] for one in self.corrections if "classifier" in one), None)

    @cached_property
    def needs_moments(self) -> bool:
        """Whether the sampler or a correction wants the rule `moments` to measure something for it."""
        parts = [("samplers", self.sampler), *(("samplers/corrections", one) for one in self.corrections)]
        return any(unmeasured(kind, values) for kind, values in parts)

    def steps(self, nfe: int) -> int:
        """Steps of the grid in which the sampler makes `nfe` network calls; raises BadConfig where there are none."""
        module, options = load_part("samplers", self.sampler)
        return module.steps(options, nfe) if hasattr(module, "steps") else nfe


class Errors(Model):
    """The cumulative error: MMD^2 between sampled and forward x_t (Li and van der Schaar, 2024, Eq. 12, 13)."""

    chains: int = Field(1000, ge=8, description="N, sampled chains that are measured")
    forward: int | None = Field(None, ge=8, description="M, forward samples; null: as many as chains")
    times: Annotated[int, Field(ge=2)] | Literal["every"] = Field(
        20, description="how many t of the grid are measured, or 'every'"
    )
    statistic: Literal["u", "v"] = Field("u", description="unbiased U-statistic or V-statistic (with diagonals)")
    kernels: Annotated[list[Kernel], AfterValidator(_different)] = Field(
        ["laplace", "gaussian", "rational-quadratic"], min_length=1, description="kernels, all computed in one pass"
    )
    bandwidths: Annotated[list[Literal["shared", "per-t"]], AfterValidator(_different)] = Field(
        ["shared", "per-t"], min_length=1, description="one kernel for all t (the paper's single RKHS), or one per t"
    )
    forward_laws: Annotated[
        list[Literal["marginal", "training-inputs"]], AfterValidator(_different), AfterValidator(_with_marginal)
    ] = Field(
        ["marginal"],
        min_length=1,
        description="what sampled x_t are compared with: marginal, q(x_t), and beside it training-inputs, what the "
        "network was given at t in training; where that is q(x_t) as well, there is no second curve",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of intervals and of the null's quantile")
    permutations: int = Field(200, ge=0, description="label permutations for the null; 0 switches it off")
    null_times: int = Field(20, ge=0, description="at most so many t get the permutation null")
    paired_times: int | None = Field(
        None,
        ge=2,
        exclude_if=lambda count: count is None,
        description="at most so many t keep what each chain adds to MMD^2, from which differences to a control are "
        "worked out: 4 bytes a chain and forward sample, for each t, kernel and bandwidth; null: all that are measured",
    )
    tolerance: float = Field(
        1e-3,
        gt=0,
        description="largest fluctuation of MMD^2 (at most 2) along a curve that is called horizontal, unless half of "
        "the curve's mean is more",
    )
    seed: int = Field(0, ge=0, description="seed of forward samples, permutations and resampling")


class Anatomy(Model):
    """How the error comes about: exposure bias and its kin, measured in the errors job beside MMD^2."""

    measures: list[dict[str, Any]] = Field(
        MEASURES, description="what is measured: names, or mappings with a name and options; [] switches it off"
    )
    observed: int = Field(
        500, ge=8, description="at most so many sampled chains and forward samples are given to the network at each t"
    )
    images: int = Field(
        200, ge=8, description="training images whose noised x_t single steps and chains start from (at most observed)"
    )
    starts: Annotated[list[Annotated[float, Field(gt=0, le=1)]], AfterValidator(_rising)] = Field(
        [0.1, 0.3, 0.5, 0.7, 1.0],
        description="shares of T at which chains start from a true x_t (the leak test; 1: the whole chain), rising; of "
        "the steps of the grid where t is sigma; [] makes no such chains",
    )
    perturbation: float = Field(
        0.05, gt=0, description="size of what is added to those x_t to measure the gain, over their root mean square"
    )
    perturbed: int = Field(50, ge=8, description="of the images, so many chains also start from a perturbed x_t")

    @model_validator(mode="before")
    @classmethod
    def _fill_parts(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(given := values.get("measures", MEASURES), list):
            filled = [_part("errors/anatomy", one, f"measures.{i}") for i, one in enumerate(given)]
            _different([one["name"] for one in filled])
            return {**values, "measures": filled}
        return values

    @model_validator(mode="after")
    def _images_are_observed(self) -> "Anatomy":
        if not self.perturbed <= self.images <= self.observed:
            raise ValueError(
                f"perturbed {self.perturbed}, images {self.images} and observed {self.observed} must not fall: each is "
                "a part of the next"
            )
        return self


class Classifier(Model):
    """The small classifier whose features serve where Inception means nothing."""

    network: Literal["small", "resnet"] | None = Field(
        None,
        description="small: plain convolutions, trained on the CPU; resnet: a residual network, on a GPU where there "
        "is one; null: resnet from 32 pixels up",
    )
    features: int = Field(64, ge=2, description="dimension of the feature vector")
    channels: int = Field(32, ge=4, description="channels of the first convolution")
    steps: int | None = Field(None, ge=1, description="optimiser steps; null: 600, of resnet 4,000")
    batch_size: int = Field(128, ge=1, description="images per step")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    seed: int = Field(0, ge=0, description="seed of weights and batches")

    def chosen(self, shape: tuple[int, int, int]) -> str:
        """The network that was asked for, or the one that suits images (C,H,W)."""
        return self.network or ("resnet" if max(shape[1:]) >= RESIDUAL_FROM else "small")


class Scores(Model):
    """Scores of sample sets against the training images."""

    classifier: Classifier = Field(Classifier(), description="the extractor 'classifier-<dataset>'")
    samples: int | None = Field(
        None, ge=2, description="samples scored, equal for floor, ceiling and runs; null: all held out"
    )
    sets: int = Field(
        1,
        ge=1,
        description="disjoint sets of so many samples that each cell is scored on, for the spread over samples beside "
        "that over trainings; the score is their mean",
    )
    inception_weights: str | None = Field(
        None, description="path of torch-fidelity's Inception weights; null: its cache"
    )
    extractors: Annotated[
        list[Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14"]],
        AfterValidator(_different),
    ] = Field([], description="further extractors of torch-fidelity, whose weights lie in torch.hub's cache")
    extrapolate: bool = Field(
        False, description="add the Frechet distance extrapolated to infinitely many samples, as FID-infinity"
    )


class Check(Model):
    """A statement about an experiment's tables that `python -m pipeline_lib check` verifies."""

    metric: Literal["fd", "mmd"] = Field(description="fd: ratio to the floor; mmd: share of steps above the null")
    nfe: int = Field(description="the cell that is checked")
    at_most: float | None = Field(None, description="largest accepted value")
    at_least: float | None = Field(None, description="smallest accepted value")

    @model_validator(mode="after")
    def _has_a_bound(self) -> "Check":
        if self.at_most is None and self.at_least is None:
            raise ValueError("a check needs at_most or at_least")
        return self


class Comparison(Model):
    """A table of methods: reproduced score, paired difference to the control, published score, costs."""

    title: str = Field(description="headline of the table")
    rows: list[str] = Field(min_length=1, description="'method/variant' in order; a grid's name stands for its points")
    note: str = Field("", description="what a reader must know, printed above the table")


class Sweep(Model):
    """A figure and a table of scores against one key, or a heat map over two."""

    title: str = Field(description="headline of figure and table")
    rows: list[str] = Field(min_length=1, description="'method/variant'; a grid's name stands for its points")
    x: RunKey = Field(description="key of the run sections on the horizontal axis")
    y: RunKey | None = Field(None, description="key on the vertical axis; null: a line figure")
    note: str = Field("", description="what a reader must know, printed above the table")


class Progress(Model):
    """Scores of the averaged weights that trainings with `snapshots` have kept, against the progress of training."""

    samplings: Annotated[list[Name], AfterValidator(_different)] | None = Field(
        None,
        min_length=1,
        description="the samplings that snapshots are scored in; null: the first scored one of each method",
    )
    nfe: int | None = Field(None, ge=1, description="network calls per image; null: the most of each sampling")
    images: int | None = Field(
        None, ge=2, description="images scored at each snapshot and at the end; null: as many as are scored elsewhere"
    )


class Tracking(Model):
    """Where the results are pushed as MLflow runs."""

    enabled: bool = Field(True, description="whether `make run` pushes to MLflow")
    uri: str = Field(
        "sqlite:///results/mlflow.db",
        pattern=r"^(sqlite:///|https?://)",
        description="a sqlite file of one machine, or an http(s) server",
    )


class Component(Model):
    """One Gaussian of a mixture."""

    weight: float = Field(1.0, gt=0, description="its share of the data; the weights sum to 1")
    mean: list[float] = Field(min_length=1, description="mean, one number a dimension")
    covariance: list[float] | list[list[float]] = Field(description="covariance matrix, or its diagonal")

    @model_validator(mode="after")
    def _covariance_is_one(self) -> "Component":
        size = len(self.mean)
        if any(isinstance(row, list) and len(row) != size for row in self.covariance) or len(self.covariance) != size:
            raise ValueError(f"a covariance must be {size}x{size}, or its diagonal of {size}, as the mean has {size}")
        values = np.array(self.covariance)
        matrix = np.diag(values) if values.ndim == 1 else values
        if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] <= 0:
            raise ValueError("a covariance must be symmetric and positive")
        return self


class Imperfection(Model):
    """What a denoiser gets wrong, at all t or in a window of them. Values that change nothing are the defaults."""

    bias: float = Field(0.0, description="added to eps")
    scale: float = Field(1.0, gt=0, description="factor of eps")
    pull: float = Field(
        0.0, ge=0, le=1, description="share of the way that x_0 is pulled to the data mean: a contraction"
    )
    images: int | None = Field(
        None, ge=2, description="images from which mean and covariance are estimated; null: known"
    )
    low: float = Field(0.0, ge=0, description="smallest t (or sigma) with this error")
    high: float | None = Field(None, gt=0, description="largest t (or sigma) with this error; null: the path's end")


class Setting(Model):
    """An imperfect chain: which denoiser, which reverse variance."""

    variance: Literal["fixed-small", "fixed-large", "oracle"] = Field(
        "oracle", description="reverse variance: beta~_t, beta_t, or the exact covariance of q(x_{t-1} | x_t)"
    )
    error: Imperfection = Field(Imperfection(), description="what the denoiser gets wrong")


class Problem(Model):
    """Data whose score is known, a path, and the chains that are studied on them."""

    data: list[Component] = Field(min_length=1, description="the mixture; exact errors need a single Gaussian")
    diffusion: Diffusion = Field(Diffusion(timesteps=100), description="path")
    nfe: int = Field(100, ge=2, description="steps of the chain")
    settings: dict[Name, Setting] = Field(min_length=1, description="chains by name")

    @model_validator(mode="after")
    def _chains_fit_the_path(self) -> "Problem":
        if self.diffusion.path == "pfgm":
            raise ValueError("known answers are those of Gaussian noise, which path pfgm has not: take vp or edm")
        vp = self.diffusion.path == "vp"
        if vp and self.nfe > self.diffusion.timesteps:
            raise ValueError(f"nfe is {self.nfe}, but the path has {self.diffusion.timesteps} steps")
        end = self.diffusion.timesteps if vp else self.diffusion.sigma_max
        for name, setting in self.settings.items():
            low, high = setting.error.low, setting.error.high
            if low > (end if high is None else min(end, high)):
                raise ValueError(
                    f"settings.{name}: no t of the path (its end is {end:g}) is in the window from {low:g}"
                )
        return self


class Coverage(Model):
    """Estimators against exact values: how often intervals cover, what is detected, what bootstrapping hides."""

    repeats: int = Field(500, ge=20, description="independent repetitions of every estimate")
    chains: int = Field(150, ge=8, description="N = M of one estimate")
    level_repeats: int = Field(2000, ge=20, description="repetitions of the test between equal laws")
    level_chains: int = Field(100, ge=8, description="N = M of the test between equal laws")
    times: int = Field(4, ge=2, description="how many t are estimated, without x_T")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals and of the test")
    permutations: int = Field(200, ge=19, description="label permutations of the test")
    power_chains: int = Field(1000, ge=8, description="N = M in the study of power")
    power_repeats: int = Field(40, ge=10, description="repetitions in the study of power")
    power_bias: Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(_rising)] = Field(
        [0.01, 0.02, 0.03, 0.04, 0.06], min_length=2, description="errors of eps in the study of power, rising"
    )
    bootstrap_lengths: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 3, 5, 7, 10], description="L of the bootstrapped error"
    )


class Leak(Model):
    """The true score down to a step, the imperfect model after it."""

    setting: Setting = Field(
        Setting(variance="fixed-large", error=Imperfection(scale=0.97)), description="the chain after the leak"
    )
    shares: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.25, 0.5, 0.75], description="shares of the steps that are done with the true score"
    )
    chains: int = Field(2000, ge=8, description="sampled chains")


class Corrected(Model):
    """Corrections of the sampler on short exact chains: epsilon scaling by each factor, and variance downscaling."""

    denoisers: dict[Name, Imperfection] = Field(
        {
            "perfect": Imperfection(),
            "scaled": Imperfection(scale=1.02),
            "contracting": Imperfection(pull=0.02),
            "estimated": Imperfection(images=50),
        },
        min_length=1,
        description="what the denoiser gets wrong, by name",
    )
    etas: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.0, 1.0], min_length=1, description="eta of DDIM: 0 is its ODE, 1 ancestral sampling with fixed-small"
    )
    nfe: list[Annotated[int, Field(ge=2)]] = Field([10, 20, 50], min_length=1, description="steps of the chains")
    factors: Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(_rising)] = Field(
        [round(0.98 + 0.005 * i, 3) for i in range(15)], min_length=2, description="lambda of epsilon scaling, rising"
    )


class Analytic(Model):
    """Known answers: the theory and the estimators on data whose score is exact."""

    problems: dict[Name, Problem] = Field(min_length=1, description="problems by name")
    coverage: Coverage = Field(Coverage(), description="estimators against exact values")
    leak: Leak = Field(Leak(), description="the leak experiment")
    corrections: Corrected = Field(Corrected(), description="corrections of the sampler")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")

    @model_validator(mode="after")
    def _laws_are_gaussian(self) -> "Analytic":
        for name, problem in self.problems.items():
            if len(problem.data) > 1:
                raise ValueError(f"problems.{name}: exact errors need data of a single Gaussian, not a mixture")
            steps, most = problem.diffusion.timesteps, max(self.corrections.nfe)
            if problem.diffusion.path == "vp" and most > steps:
                raise ValueError(f"corrections.nfe: {most} is more than the {steps} steps of the path of {name}")
        return self


class Experiment(Model):
    """A configuration file."""

    experiment: Name = Field(description="name of the experiment and of its folder in results/")
    title: str = Field("", description="headline of the report")
    seeds: Annotated[list[int], AfterValidator(_different_seeds)] = Field([0], description="training seeds")
    base: Partial = Field({}, description="run sections (diffusion, network, training) that every run starts from")
    datasets: dict[Name, Dataset] = Field({}, description="datasets by name")
    methods: Annotated[dict[Name, Method], AfterValidator(grids.expand)] = Field(
        {}, description="training methods by name"
    )
    sampling: Annotated[dict[Name, Sampling], AfterValidator(grids.expand_samplings)] = Field(
        {}, description="samplings by name"
    )
    analytic: Analytic | None = Field(None, description="known answers; an experiment may consist of them alone")
    errors: Errors = Field(Errors(), description="cumulative error")
    anatomy: Anatomy = Field(
        default_factory=lambda: Anatomy.model_validate({}), description="how the error comes about"
    )
    scores: Scores = Field(Scores(), description="scores")
    progress: Progress = Field(Progress(), description="scores against the progress of training")
    comparisons: dict[Name, Comparison] = Field({}, description="tables of methods by name, such as table1")
    sweeps: dict[Name, Sweep] = Field({}, description="figures of scores against settings by name, such as fig4")
    checks: list[Check] = Field([], description="what `check` verifies")
    tracking: Tracking = Field(Tracking(), description="MLflow")
    runtime: Runtime = Field(Runtime(), description="how jobs are run")

    @model_validator(mode="after")
    def _has_something_to_do(self) -> "Experiment":
        given = {k: bool(getattr(self, k)) for k in ("datasets", "methods", "sampling")}
        if any(given.values()) or not self.analytic:
            for key, there in given.items():
                if not there:
                    raise ValueError(f"the key '{key}' is missing")
        return self

    def sampled(self, method: str) -> dict[str, Sampling]:
        """The samplings that draw from a method's runs, by name; the first is its main one. A classifier has none."""
        if self.methods[method].classifies:
            return {}
        return {name: s for name, s in self.sampling.items() if s.methods is None or method in s.methods}


def parse_experiment(values: dict[str, Any]) -> Experiment:
    """Validate the merged content of a configuration file; raises BadConfig with one sentence."""
    return parse(Experiment, values)
