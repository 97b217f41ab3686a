"""Window and cutoff of the time shift (Li et al., ICLR 2024), by the score; no shift is among the trials."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.tuning._bench import Bench, Found

FINDS = "time-shift"

Times = list[Annotated[int, Field(ge=0)]]


class Options(Model):
    """The grid of windows and cutoffs. The defaults span the published examples for T = 1000."""

    images: int = Field(10_000, ge=2, description="chains of a trial")
    windows: Times = Field([10, 30, 80], min_length=1, description="tried windows")
    cutoffs: Times = Field([200, 300, 550, 900], min_length=1, description="tried cutoffs")
    reading: Literal["paper", "released", "released-adm"] = Field("paper", description="reading of time-shift")


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig on a path without discrete steps, for a window past its ends, or a cutoff that is no shift."""
    if diffusion.path != "vp":
        raise BadConfig(f"{where}: time-shift is for a path with discrete steps (diffusion.path vp).")
    if max(options.windows) >= diffusion.timesteps:
        raise BadConfig(
            f"{where}: a time-shift window of {max(options.windows)} is wider than the path, which has "
            f"{diffusion.timesteps} steps."
        )
    if max(options.cutoffs) >= diffusion.timesteps:
        raise BadConfig(
            f"{where}: a cutoff of {max(options.cutoffs)} switches the shift off, since the path has "
            f"{diffusion.timesteps} steps; no shift is tried anyway."
        )


def find(options: Options, bench: Bench) -> Found:
    """The best time shift, or None where none is best."""
    shifts: list[dict[str, Any]] = [
        {"name": FINDS, "reading": options.reading, "window": window, "cutoff": cutoff}
        for window, cutoff in product(options.windows, options.cutoffs)
    ]
    tried: list[Found] = [None, *shifts]
    scores = [bench.score(one, "grid" if one else "no shift") for one in tried]
    return tried[scores.index(min(scores))]
