"""The corrections stage: the exact error at x_0 of short chains, with and without corrections of the sampler.

The chains are those of DDIM, whose eta = 1 is ancestral sampling with the variance fixed-small. Epsilon scaling of an
affine denoiser is affine, and variance downscaling is told the exact moments of the error of x_0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.problems import Study
from pipeline_lib.analytic.sampler_kit import Affine, laws
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Corrected, Imperfection, Problem
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.diffusion.paths import VPPath
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.samplers.corrections.variance_downscaling import READ, Options, VarianceDownscaling

VERSION = 1

Row = dict[str, Any]


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path) -> None:
    """Write the rows of `config`: `problem`, `corrections` and `seed`."""
    watch = Stopwatch("corrections")
    study = Study(parse(Problem, config["problem"], "analytic.problems"), config["seed"])
    corrected = parse(Corrected, config["corrections"], "analytic.corrections")
    found = [
        {"setting": name, "eta": eta, "nfe": nfe, **row}
        for name, error in corrected.denoisers.items()
        for eta in corrected.etas
        for nfe in corrected.nfe
        for row in rows(study, error, eta, nfe, corrected.factors)
    ]
    tables.write(output, found, tables.CORRECTIONS, provenance.of("corrections", VERSION, config, {}))
    watch.save(output.parent)


def rows(study: Study, error: Imperfection, eta: float, nfe: int, factors: list[float]) -> Iterator[Row]:
    """The uncorrected chain, one for each lambda, and one for each reading of variance downscaling."""
    grid, denoiser = study.path.grid(nfe), study.linear(error)
    yield {"correction": "none", **end(study, grid, denoiser, Chain(eta))}
    for factor in factors:
        scaled = exact.erring(denoiser, 1 / factor)
        yield {"correction": "epsilon-scaling", "factor": factor, **end(study, grid, scaled, Chain(eta))}
    if isinstance(study.path, VPPath):
        moments = of_error(study, grid, denoiser)
        for reading in READ:
            correction = VarianceDownscaling(Options(reading=reading, **moments))
            row = end(study, grid, denoiser, Chain(eta, correction))
            yield {"correction": f"variance-downscaling, {reading}", **row, **correction.facts()}


@dataclass(frozen=True)
class Chain:
    """DDIM's step as an affine map of x_t with noise."""

    eta: float
    correction: VarianceDownscaling | None = None

    def __call__(self, step: Step, denoiser: exact.Linear) -> Affine:
        gain, offset = denoiser(step)
        eye = torch.eye(len(gain), dtype=torch.float64)
        own = self.eta**2 * step.posterior_variance
        keep = (step.s_next**2 - own) ** 0.5 / step.s
        share = step.a_next - keep * step.a
        noise = own if self.correction is None or step.is_last else self.correction.noise(step, own)
        return share * gain + keep * eye, share * offset, noise * eye


def end(study: Study, grid: Grid, denoiser: exact.Linear, chain: Chain) -> Row:
    """The exact errors at the last noisy x_t and at x_0."""
    *_, noisy, last = laws(study.prior, grid, denoiser, chain)
    data = exact.marginal(study.data, 1.0, 0.0)
    return {
        "kl": exact.kl(last, data),
        "kl_noisy": exact.kl(noisy, exact.marginal(study.data, grid.a[-2], grid.s[-2])),
        "spread": float(last.covariance.trace() / data.covariance.trace()),
    }


def of_error(study: Study, grid: Grid, denoiser: exact.Linear) -> dict[str, dict[int, float]]:
    """What the rule `moments` estimates of the error of x_0, in closed form at every t of the grid."""
    mean, covariance = study.data.moments()
    found: dict[str, dict[int, float]] = {"x0_error": {}, "x0_excess": {}, "x0_cross": {}}
    for step in grid:
        gain, offset = denoiser(step)
        total, cross = exact.marginal(study.data, step.a, step.s).covariance, step.a * gain @ covariance
        predicted, bias = gain @ total @ gain.T, gain @ (step.a * mean) + offset - mean
        values = {
            "x0_error": (predicted - 2 * cross + covariance).trace() + bias @ bias,
            "x0_excess": (predicted - covariance).trace(),
            "x0_cross": (gain @ total - step.a * covariance).trace(),
        }
        for name, value in values.items():
            found[name][round(step.t)] = float(value) / len(mean)
    return found
