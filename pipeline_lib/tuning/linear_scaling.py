"""The published search for lambda_i = k i + b (Ning et al., ICLR 2024): the best b at k = 0, then k at the same sum.

With S steps, b = b* - k (S - 1) / 2 keeps the sum of all lambda at S b*. Strides of k of 0.0002, as for LSUN [found].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.exits import BadConfig
from pipeline_lib.tuning._scaling import DIGITS, NAME, UniformOptions, best_b, scaling

if TYPE_CHECKING:
    from pipeline_lib.config.models import Diffusion
    from pipeline_lib.tuning._bench import Bench, Found

FINDS = NAME


class Options(UniformOptions):
    """Where b and k are sought."""

    k_stride: float = Field(0.0002, gt=0, description="distance of the tried k")
    k_high: float = Field(0.001, gt=0, description="largest k")
    k_low: float = Field(0.0, le=0, description="smallest k: lambda may also fall towards the noise end")


def check(options: Options, diffusion: Diffusion, steps: int, where: str) -> None:
    """Raise BadConfig where a lambda could fall to 0."""
    lean = max(options.k_high, -options.k_low) * (steps - 1) / 2
    if lean >= options.least:
        raise BadConfig(
            f"{where}: in {steps} steps lambda falls {lean:.3g} below its mean, which may be {options.least:g}; lower "
            "k_high, or reach."
        )


def find(options: Options, bench: Bench) -> Found:
    """Epsilon scaling with the best k at the best mean."""
    mean = best_b(options, bench)
    first, last = round(options.k_low / options.k_stride), round(options.k_high / options.k_stride)
    slopes = [round(i * options.k_stride, DIGITS) for i in range(first, last + 1)]
    tried = [constants(mean, k, bench.steps) for k in slopes]
    scores = [bench.score(scaling(options, **one), f"k, stride {options.k_stride:g}") for one in tried]
    return scaling(options, **tried[scores.index(min(scores))])


def constants(mean: float, k: float, steps: int) -> dict[str, float]:
    """b and k whose lambda_i, i from 0 to steps - 1, have this mean."""
    return {"b": round(mean - k * (steps - 1) / 2, DIGITS), "k": k}
