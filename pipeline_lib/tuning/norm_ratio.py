"""A factor for each step from local norms of eps: after one step from the true x_t, over those at the true x_u.

For each place u of the grid, the sampler makes the one step that ends there, from x_t = a_t x_0 + s_t eps; the root
mean squared norm of the eps that is predicted at its end, over that at x_u = a_u x_0 + s_u eps of the same images and
noise, is lambda of the step from u. The ratio has no unit, nothing accumulates, and no score is needed. The first step
begins at the true x_T, so its lambda is 1. A factor of eps that the network always has is in both norms: this way does
not see it (docs/tuning.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.tuning._scaling import NAME, Scaling, scaling

if TYPE_CHECKING:
    from pipeline_lib.tuning._bench import Bench, Found

FINDS = NAME
PER_STEP = AT_GRID_TIMES = True


class Options(Scaling):
    """Of how many training images norms are taken, at most all."""


def find(options: Options, bench: Bench) -> Found:
    """Epsilon scaling with the ratio at the beginning of every step."""
    from pipeline_lib.tuning._bench import NORM_RATIO, columns, norm_ratio

    def ratio(place: int) -> tuple[float, float]:
        _, sampled = bench.advance(place - 1, bench.true(place - 1), 1.0, options.scaled)
        return norm_ratio(sampled, bench.norms(place, bench.true(place)))

    def trial(place: int) -> float:
        about = {"round": f"step {place}", "metric": NORM_RATIO, "images": bench.known, **columns(None)}
        return bench.trial(f"step {place}", lambda: ratio(place), about)["score"]

    return scaling(options, factors=[1.0, *map(trial, range(1, bench.steps))])
