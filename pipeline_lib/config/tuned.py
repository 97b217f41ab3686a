"""Whose tuning a sampling uses, and the refusals of tunings and transfers that cannot work."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib import registry
from pipeline_lib.config.base import load_part
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Sampling
    from pipeline_lib.config.plan import Instance, Plan


def source(one: "Instance", name: str, samplings: Mapping[str, "Sampling"]) -> str | None:
    """Folder, below the experiment, of the sampled run whose tuning the sampling `name` uses; None for most."""
    sampling = samplings[name]
    if sampling.tuning:
        return f"{one.path}/{name}"
    if sampling.transfer is None:
        return None
    dataset = sampling.transfer.dataset or one.dataset
    return f"{dataset}/{one.method}/{one.variant}/s{one.seed}/{sampling.transfer.sampling}"


def check(plan: "Plan") -> None:
    """Raise BadConfig where a tuning does not suit its sampling, or a transfer has nothing to take or cannot use it."""
    samplings = plan.experiment.sampling
    known = {f"{one.path}/{name}" for one in plan.instances for name in plan.samplings_of(one)}
    for name, sampling in samplings.items():
        if sampling.transfer:
            _check_transfer(plan, name, sampling)
        for one in plan.instances:
            if name in plan.samplings_of(one) and sampling.sought():
                _check_way(one, name, samplings)
                if (place := source(one, name, samplings)) not in known:
                    raise BadConfig(
                        f"sampling.{name}.transfer: there is no run {place}, whose tuning {one.path} could use; "
                        "restrict `methods` of the sampling, or take constants from another."
                    )


def refuse_moved_steps(sampling: "Sampling", where: str, *found: str, bound: str | None = None) -> None:
    """Raise BadConfig where one part, or a correction that is `found` by tuning, leaves the t that another measures.

    `bound`: a way of tuning that measures at the t of the grid, too.
    """
    corrections = [*found, *(one["name"] for one in sampling.corrections)]
    parts = [("samplers", sampling.sampler["name"]), *(("samplers/corrections", name) for name in corrections)]
    modules = {name: registry.find(kind, name) for kind, name in parts}
    moved = [name for name, module in modules.items() if hasattr(module, "MOVES_STEPS")]
    measured = [bound] if bound else [name for name, module in modules.items() if hasattr(module, "unknown")]
    if moved and measured:
        raise BadConfig(
            f"{where}: {measured[0]} knows the t of the grid alone, and {moved[0]} leaves them: take only one."
        )


def _check_way(one: "Instance", name: str, samplings: Mapping[str, "Sampling"]) -> None:
    sampling = samplings[name]
    way, options = load_part("tuning", _tuning(sampling, samplings))
    where = f"sampling.{name}"
    if any(correction["name"] == way.FINDS for correction in sampling.corrections):
        raise BadConfig(f"{where}: {way.FINDS} is tuned, and stands in corrections as well; remove it there.")
    refuse_moved_steps(sampling, where, way.FINDS)
    if sampling.tuning and getattr(way, "AT_GRID_TIMES", False):
        refuse_moved_steps(sampling, where, bound=sampling.tuning["name"])
    for nfe in sampling.nfe:
        if hasattr(way, "check"):  # what a way asks of the path and the steps
            way.check(options, one.run.diffusion, sampling.steps(nfe), where)


def _tuning(sampling: "Sampling", samplings: Mapping[str, "Sampling"]) -> Mapping[str, object]:
    tuning = samplings[sampling.transfer.sampling].tuning if sampling.transfer else sampling.tuning
    assert tuning is not None  # checked before
    return tuning


def _check_transfer(plan: "Plan", name: str, sampling: "Sampling") -> None:
    """The sampling that is named must have tuned what is asked of it."""
    where, transfer, samplings = f"sampling.{name}.transfer", sampling.transfer, plan.experiment.sampling
    assert transfer is not None
    tuned = [other for other, one in samplings.items() if one.tuning]
    other = samplings.get(transfer.sampling)
    if other is None:
        raise BadConfig(f"{where}: no sampling '{transfer.sampling}'; {registry.nearest(transfer.sampling, samplings)}")
    if other.transfer:
        raise BadConfig(f"{where}: {transfer.sampling} has its constants from another sampling; name that one.")
    if other.tuning is None:
        raise BadConfig(f"{where}: {transfer.sampling} tunes nothing; {registry.nearest(transfer.sampling, tuned)}")
    if transfer.dataset and transfer.dataset not in plan.experiment.datasets:
        nearest = registry.nearest(transfer.dataset, plan.experiment.datasets)
        raise BadConfig(f"{where}: no dataset '{transfer.dataset}'; {nearest}")
    way, _ = load_part("tuning", other.tuning)
    for nfe in sampling.nfe:
        asked = transfer.nfe or nfe
        if asked not in other.nfe:
            raise BadConfig(f"{where}: {transfer.sampling} is not tuned at {asked} calls, only at {other.nfe}.")
        there, here = other.steps(asked), sampling.steps(nfe)
        if getattr(way, "PER_STEP", False) and there != here:
            raise BadConfig(
                f"{where}: {transfer.sampling} finds a factor for each of {there} steps, which do not fit {here}; "
                "factors serve a sampling with as many steps."
            )
