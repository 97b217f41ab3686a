"""How a sampling comes to know the constants that were tuned for it."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline_lib.config.base import load_part, parse
from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.config.sampled import SOUGHT
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.files import digest
from pipeline_lib.records.store import Manifest


def file(nfe: int) -> str:
    """Where the correction that was found for so many calls lies in the folder of a tuning."""
    return f"nfe{nfe:04d}/found.json"


def known(sampling: Sampling, nfe: int, tuned: Manifest | None, diffusion: Mapping[str, Any]) -> Sampling:
    """The sampling at `nfe` calls with the correction that was found for it before all others, and nothing to seek.

    `diffusion`: the path that the run was trained on. Raises BadConfig where the tuning is not given, or its constants
    do not suit this path or number of steps; BadData where it has found nothing for so many calls.
    """
    if not sampling.sought():
        return sampling
    if tuned is None:
        raise BadConfig("the sampling uses tuned constants; give the manifest of their tuning with --tuned.")
    asked = file(sampling.transfer.nfe or nfe if sampling.transfer else nfe)
    if asked not in tuned.files:
        raise BadData(f"the tuning in {tuned.folder} has no {asked}; run the tune stage again.")
    found = json.loads(tuned.file(asked).read_text())["correction"]
    if found:
        _check(found, parse(Diffusion, diffusion), sampling.steps(nfe), f"at {nfe} calls, constants of {tuned.folder}")
    corrections = [*([found] if found else []), *sampling.corrections]
    return sampling.model_copy(update={"corrections": corrections, **dict.fromkeys(SOUGHT)})


def _check(found: Mapping[str, Any], diffusion: Diffusion, steps: int, where: str) -> None:
    """Constants of another number of steps may not serve: lambda_i = k i + b of epsilon scaling can fall to 0."""
    module, options = load_part("samplers/corrections", found)
    if hasattr(module, "check"):
        module.check(options, diffusion, steps, where)


def suffix(asked: Sampling, own: Sampling) -> str:
    """What tells apart the samples of one sampling that were drawn with different constants or moments; empty without.

    So a cell stays when others of its sampling are tuned or measured anew, and a tuning that finds nothing has the
    cell of the untuned sampling.
    """
    if own.sampler != asked.sampler:
        return f"-{digest([own.sampler, own.corrections])[:8]}"
    return f"-{digest(own.corrections)[:8]}" if own.corrections != asked.corrections else ""
