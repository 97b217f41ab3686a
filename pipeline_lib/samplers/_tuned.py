"""How a sampling comes to know the constants that were tuned for it."""

import json

from pipeline_lib.config.models import Sampling
from pipeline_lib.config.sampled import SOUGHT
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.records.files import digest
from pipeline_lib.records.store import Manifest


def file(nfe: int) -> str:
    """Where the correction that was found for so many calls lies in the folder of a tuning."""
    return f"nfe{nfe:04d}/found.json"


def known(sampling: Sampling, nfe: int, tuned: Manifest | None) -> Sampling:
    """The sampling at `nfe` calls with the correction that was found for it before all others, and nothing to seek.

    Raises BadConfig where the tuning is not given, BadData where it has found nothing for so many calls.
    """
    if not sampling.sought():
        return sampling
    if tuned is None:
        raise BadConfig("the sampling uses tuned constants; give the manifest of their tuning with --tuned.")
    asked = file(sampling.transfer.nfe or nfe if sampling.transfer else nfe)
    if asked not in tuned.files:
        raise BadData(f"the tuning in {tuned.folder} has no {asked}; run the tune stage again.")
    found = json.loads(tuned.file(asked).read_text())["correction"]
    corrections = [*([found] if found else []), *sampling.corrections]
    return sampling.model_copy(update={"corrections": corrections, **dict.fromkeys(SOUGHT)})


def suffix(asked: Sampling, own: Sampling) -> str:
    """What tells apart the samples of one sampling that were drawn with different constants or moments; empty without.

    So a cell stays when others of its sampling are tuned or measured anew.
    """
    if own.sampler != asked.sampler:
        return f"-{digest([own.sampler, own.corrections])[:8]}"
    return f"-{digest(own.corrections)[:8]}" if asked.sought() or own.corrections != asked.corrections else ""
