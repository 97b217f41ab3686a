"""A factor for each step by the score: each lambda in turn a stride up and down, in sampling order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.exits import BadConfig
from pipeline_lib.tuning._scaling import DIGITS, NAME, Scaling, scaling

if TYPE_CHECKING:
    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.tuning._bench import Bench, Found

FINDS = NAME
PER_STEP = True


class Options(Scaling):
    """The coordinate search: about 2 S trials a round for S steps."""

    start: float = Field(1.0, gt=0, description="lambda of all steps at the start, such as the best uniform b")
    stride: float = Field(0.005, gt=0, description="change of a lambda")
    rounds: int = Field(2, ge=1, description="times that every step has its turn; a round without a change is the last")


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig where a lambda could fall to 0."""
    if options.start <= options.rounds * options.stride:
        raise BadConfig(f"{where}: per-step could take a lambda from {options.start:g} to 0; lower stride or rounds.")


def find(options: Options, bench: Bench) -> Found:
    """Epsilon scaling with the best factors."""

    def score(factors: list[float], name: str) -> float:
        return bench.score(scaling(options, factors=factors), name)

    best = [options.start] * bench.steps
    lowest = score(best, "start")
    for turn in range(options.rounds):
        before = best
        for place in range(bench.steps):
            for change in (options.stride, -options.stride):
                tried = [*best[:place], round(best[place] + change, DIGITS), *best[place + 1 :]]
                value = score(tried, f"round {turn}, step {place}")
                if value < lowest:
                    best, lowest = tried, value
                    break
        if best == before:
            break
    return scaling(options, factors=best)
