"""The published search for epsilon scaling (Ning et al., ICLR 2024): one b for all steps, by the score.

Coarse strides of 0.005, then fine ones of 0.001 around the best, on 10,000 samples [found]; the range is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.tuning._scaling import NAME, UniformOptions, best_b, scaling

if TYPE_CHECKING:
    from pipeline_lib.tuning._bench import Bench, Found

FINDS = NAME


class Options(UniformOptions):
    """Where b is sought."""


def find(options: Options, bench: Bench) -> Found:
    """Epsilon scaling with the best b."""
    return scaling(options, b=best_b(options, bench))
