"""The exact stage: every exact error of every chain of a problem, at every t."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.problems import Study
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Problem, Setting
from pipeline_lib.diffusion.paths import log_snr
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch

VERSION = 2
READINGS = {  # columns of the modular error: direction of the KL, and the law that x_t is drawn from
    "modular_p_p": ("p||q", "p"),
    "modular_p_q": ("p||q", "q"),
    "modular_q_p": ("q||p", "p"),
    "modular_q_q": ("q||p", "q"),
}

Row = dict[str, Any]


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path) -> None:
    """Write the exact curves of `config`: a `problem` and a `seed`."""
    watch = Stopwatch("exact")
    problem = parse(Problem, config["problem"], "analytic.problems")
    study = Study(problem, config["seed"])
    found = [{"setting": name, **row} for name, setting in problem.settings.items() for row in rows(study, setting)]
    tables.write(output, found, tables.EXACT, provenance.of("exact", VERSION, config, {}))
    watch.save(output.parent)


def rows(study: Study, setting: Setting) -> Iterator[Row]:
    """A row for x_T, then one for what each step ends with."""
    links = study.links(setting)
    first = links[0]
    carried = torch.eye(study.data.dimension, dtype=torch.float64)
    yield {**place(0, first.step.t, first.step.a, first.step.s), **_laws(first.p_t, first.q_t)}
    for link, (chain, single) in zip(links, exact.deviations(study.data, links), strict=True):
        step = link.step
        gap = exact.spread_gap(chain, step.s_next)
        carried = link.m @ carried
        yield {
            **place(step.index + 1, step.t_next, step.a_next, step.s_next),
            **_laws(link.p_u, link.q_u),
            "before": exact.kl(link.p_t, link.q_t),
            **{name: exact.modular_error(link, *reading) for name, reading in READINGS.items()},
            "gap": exact.backward_gap(link),
            "amplification": exact.stretch(link.m, link.q_t, link.q_u),
            "carried": exact.stretch(carried, first.q_t, link.q_u),
            "spread_gap": gap,
            "delta": gap**2,
            "spread_gap_step": exact.spread_gap(single, step.s_next),
            "eps_norm_sampling": exact.rms(exact.eps_law(link, link.p_t)),
            "eps_norm_training": exact.rms(exact.eps_law(link, link.q_t)),
            "eps_kl": exact.kl(exact.eps_law(link, link.p_t), _standard(study)) / study.data.dimension,
        }


def length_scale(q: exact.Normal) -> float:
    """Root mean squared distance of two forward samples: a closed form in the place of their median distance."""
    return float((2 * q.covariance.trace()).sqrt())


def _standard(study: Study) -> exact.Normal:
    """N(0, I)."""
    return exact.Normal(study.prior.mean, study.prior.covariance / study.path.prior_std**2)


def place(step: int, t: float, a: float, s: float) -> Row:
    """Where on the path a row stands."""
    return {"step": step, "t": t, "log_snr": log_snr(a, s)}


def _laws(p: exact.Normal, q: exact.Normal) -> Row:
    scale = length_scale(q)
    return {
        "kl": exact.kl(p, q),
        "mmd2": exact.mmd2(p, q, scale),
        "length_scale": scale,
        "entropy": exact.entropy(p),
    }
