"""Which sampled runs are scored at the snapshots of their training, and the refusals of what cannot be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline_lib import registry
from pipeline_lib.config.models import EMA, Experiment, Sampling
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.plan import Instance, Plan


def samplings(plan: "Plan", one: "Instance") -> list[str]:
    """Names of the samplings in which the snapshots of a training are scored; none where it keeps none."""
    found = plan.samplings_of(one) if one.run.training.snapshot_steps else {}
    asked = plan.experiment.progress.samplings
    if asked is None:
        return [name for name, sampling in found.items() if sampling.scored][:1]
    return [name for name in found if name in asked]


def config(exp: Experiment, sampling: Sampling, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the stage: the sampling with one number of calls, and how many images (null: held out)."""
    nfe = exp.progress.nfe or max(sampling.nfe)
    return {
        "sampling": {**{k: v for k, v in drawn.items() if k != "images"}, "nfe": [nfe]},
        "images": exp.progress.images or exp.scores.samples,
    }


def check(plan: "Plan") -> None:
    """Raise BadConfig where snapshots cannot be scored in a sampling, or its images at the end would not be enough.

    Constants that are found for the last weights would not be those of a snapshot.
    """
    exp = plan.experiment
    for name in exp.progress.samplings or ():
        if name not in exp.sampling:
            raise BadConfig(f"progress.samplings: no sampling '{name}'; {registry.nearest(name, exp.sampling)}")
        if not any(name in samplings(plan, one) for one in plan.instances):
            raise BadConfig(f"progress.samplings: {name} draws from no training that keeps training.snapshots.")
    if exp.progress.model_fields_set and not plan.progressed:
        raise BadConfig(
            "progress: no training keeps snapshots that could be scored; set base.training.snapshots, or leave "
            "progress away (null, where it is that of a file that this one extends)."
        )
    for one in plan.instances:
        for name in samplings(plan, one):
            _check(exp, name)


def _check(exp: Experiment, name: str) -> None:
    sampling, other = exp.sampling[name], "name another sampling in progress.samplings."
    if not sampling.scored:
        raise BadConfig(f"progress: {name} is not scored (sampling.{name}.scored); {other}")
    if sampling.sought() or sampling.needs_moments:
        raise BadConfig(f"progress: {name} has constants that are found for the last weights of a training; {other}")
    if sampling.weights != EMA:
        raise BadConfig(f"progress: {name} samples the average '{sampling.weights}', snapshots are of {EMA}; {other}")
    if exp.progress.nfe and exp.progress.nfe not in sampling.nfe:
        raise BadConfig(
            f"progress.nfe: {name} does not sample {exp.progress.nfe} calls, only {sampling.nfe}; name one of these, "
            "or null for the most."
        )
    if exp.progress.images and exp.progress.images > sampling.images:
        raise BadConfig(
            f"progress.images: {exp.progress.images} are more than the {sampling.images} of {name}; name fewer, or "
            "null for as many as its scores take."
        )
