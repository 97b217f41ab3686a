"""The leak stage: the true score down to a step and an imperfect model after it, exact and sampled.

The chain starts from the noised x_0 at the top of the grid, so that delta_t means the same with and without a leak.
What is seen below the leak is the error of the steps after it alone, and how it travels.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.coverage import Watched, matrices
from pipeline_lib.analytic.curves import length_scale, place
from pipeline_lib.analytic.problems import COMPARED, Study
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Leak, Problem, Setting
from pipeline_lib.errors.chains import measured
from pipeline_lib.errors.exposure import Measured, ratio, rms, spread_gap
from pipeline_lib.errors.uncertainty import estimate
from pipeline_lib.exits import BadConfig
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch

VERSION = 2
CONFIDENCE, TIMES = 0.95, 12

Row = dict[str, Any]


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path) -> None:
    """Write the rows of `config`: `problem`, `leak` and `seed`."""
    watch = Stopwatch("leak")
    study = Study(parse(Problem, config["problem"], "analytic.problems"), config["seed"])
    leak = parse(Leak, config["leak"], "analytic.leak")
    found = [{"leak": share, "n": leak.chains, **row} for share in leak.shares for row in rows(study, leak, share)]
    tables.write(output, found, tables.LEAK, provenance.of("leak", VERSION, config, {}))
    watch.save(output.parent)


def rows(study: Study, leak: Leak, share: float) -> Iterator[Row]:
    """Exact values after every step below the leak, with estimates from sampled chains at some of them."""
    top = round(share * len(study.grid))
    if top >= len(study.grid):
        raise BadConfig(f"analytic.leak: a share of {share:g} leaves no step of {len(study.grid)} to the model.")
    grid, index = study.grid.below(top), torch.arange(leak.chains)
    x0, eps = study.forward(leak.chains)
    y0, eta = study.forward(leak.chains, COMPARED)
    places = set(measured(len(grid), TIMES)[1:])
    watched = Watched(places, {p - 1 for p in places})
    leaked = study.true_chain(study.grid.a[0] * x0 + study.grid.s[0] * eps, index, top)
    watched.x[len(grid)] = study.simulate(leak.setting, leaked, index, grid, watched)
    denoiser, links = study.denoiser(leak.setting), chain_of(study, leak.setting, top)
    after = list(zip(links, exact.deviations(study.data, links), strict=True))[top:]
    for p, (link, (chain, _)) in enumerate(after, start=1):
        a, s, scale = grid.a[p], grid.s[p], length_scale(link.q_u)
        estimates: dict[str, Measured] = {}
        if p in places:
            found = estimate(*matrices(watched.x[p], a * y0 + s * eta, scale))
            before = link.step
            true = denoiser(before.a * y0 + before.s * eta, before.t)
            estimates = {
                "mmd2": Measured(found.value, found.se),
                "spread-gap": spread_gap(watched.x[p] - a * x0, s),
                "eps-norm-ratio": ratio(rms(watched.eps[p - 1]), rms(true.eps)),
            }
        exactly = {
            "kl": exact.kl(link.p_u, link.q_u),
            "mmd2": exact.mmd2(link.p_u, link.q_u, scale),
            "spread-gap": exact.spread_gap(chain, s),
            "eps-norm-ratio": exact.rms(exact.eps_law(link, link.p_t)) / exact.rms(exact.eps_law(link, link.q_t)),
        }
        for quantity, value in exactly.items():
            yield {
                **place(top + p, grid.times[p], a, s),
                "quantity": quantity,
                "exact": value,
                **_estimated(estimates.get(quantity)),
            }


def chain_of(study: Study, setting: Setting, top: int) -> list[exact.Link]:
    """The exact chain from the true x_T: `top` steps of the true score, the rest of the setting."""
    law = exact.marginal(study.data, study.grid.a[0], study.grid.s[0])
    true = study.links(Setting(variance="oracle"), start=law)[:top]
    return [*true, *study.links(setting, study.grid.below(top), true[-1].p_u if true else law)]


def _estimated(found: Measured | None) -> Row:
    if found is None:
        return {}
    low, high = found.interval(CONFIDENCE)
    return {"estimate": found.value, "low": low, "high": high}
