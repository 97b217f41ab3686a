"""The coverage stage: the suite's estimators against exact values, on many independent repetitions."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from math import isnan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.curves import length_scale, place
from pipeline_lib.analytic.problems import COMPARED, Study
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Coverage, Imperfection, Problem, Setting
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.kernels import gaussian, squared_distances
from pipeline_lib.errors.chains import measured
from pipeline_lib.errors.exposure import Measured, rms, spread_gap
from pipeline_lib.errors.uncertainty import estimate, labellings, p_value, permutation_null
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch

VERSION = 2
SURE = 0.999  # level of the interval of a share: a table has hundreds of them
SHUFFLE = 0  # seed of the label permutations
POWER = 0.8  # an error counts as detected where so many tests reject
AWAY = 3.0  # standard errors from 0 at which an interval of MMD^2 must hold its level
NEAR = "near the null: the permutation test decides"  # where MMD^2 is skewed and no normal interval is exact
log = logging.getLogger(__name__)

Row = dict[str, Any]


def run(config: Mapping[str, Any], runtime: Mapping[str, Any], output: Path) -> None:
    """Write the coverage rows of `config`: `problem`, `coverage` and `seed`."""
    watch = Stopwatch("coverage")
    problem = parse(Problem, config["problem"], "analytic.problems")
    trial = Repetitions(Study(problem, config["seed"]), parse(Coverage, config["coverage"], "analytic.coverage"))
    found = [*trial.null(), *trial.power()]
    for name, setting in problem.settings.items():
        log.info("intervals on %s", name)
        found += [{"setting": name, **row} for row in (*trial.intervals(setting), *trial.bootstrapped(setting))]
    tables.write(output, found, tables.COVERAGE, provenance.of("coverage", VERSION, config, {}))
    watch.save(output.parent)


class Repetitions:
    """Repetitions on one problem: repetition r has the samples r n ... (r + 1) n - 1 of one large draw."""

    def __init__(self, study: Study, options: Coverage) -> None:
        self.study, self.options = study, options
        self.places = measured(len(study.grid), options.times + 1)[1:]

    def intervals(self, setting: Setting) -> Iterator[Row]:
        """How often the intervals of MMD^2, spread gap and eps norm hold the exact value."""
        study, n, repeats = self.study, self.options.chains, self.options.repeats
        index = torch.arange(n * repeats)
        links = study.links(setting)
        x0, eps = study.forward(len(index), setting=setting)
        chains = self._watched(setting, study.start(setting, index), index)
        told = self._watched(setting, study.grid.a[0] * x0 + study.grid.s[0] * eps, index)
        deviations = [chain for chain, _ in exact.deviations(study.data, links)]
        for p in self.places:
            a, s = study.grid.a[p], study.grid.s[p]
            link, scale, cuts = links[p - 1], length_scale(links[p - 1].q_u), self._cuts(n, repeats)
            pairs = [(chains.x[p][k], a * x0[k] + s * eps[k]) for k in cuts]
            true = exact.mmd2(link.p_u, link.q_u, scale)
            yield self._share("mmd2", p, true, [_mmd(x, y, scale) for x, y in pairs])
            true = exact.spread_gap(deviations[p - 1], s)
            yield self._share("spread-gap", p, true, [spread_gap(told.x[p][k] - a * x0[k], s) for k in cuts])
            true = exact.rms(exact.eps_law(link, link.p_t))
            yield self._share("eps-norm", p - 1, true, [rms(chains.eps[p - 1][k]) for k in cuts])

    def null(self) -> Iterator[Row]:
        """How often the permutation test rejects two independent sets of forward samples."""
        study, n, repeats = self.study, self.options.level_chains, self.options.level_repeats
        (x0, eps), (y0, eta) = study.forward(n * repeats, COMPARED), study.forward(n * repeats)
        labels = labellings(n, n, self.options.permutations, SHUFFLE)
        for p in self.places:
            a, s = study.grid.a[p], study.grid.s[p]
            scale = length_scale(exact.marginal(study.data, a, s))
            tests = [
                _rejects(a * x0[k] + s * eps[k], a * y0[k] + s * eta[k], scale, labels, self._alpha)
                for k in self._cuts(n, repeats)
            ]
            rejected, values = zip(*tests, strict=True)
            row = self._row("permutation-level", p, rejected, values, 0.0, n) | {"level": self._alpha}
            often = "rejects too often" if row["low"] > self._alpha else "rejects too rarely"
            yield row | {"verdict": "keeps its level" if row["low"] <= self._alpha <= row["high"] else often}

    def power(self) -> Iterator[Row]:
        """How often a bias of eps at all t is detected at x_0, and the smallest MMD^2 that POWER of the tests find."""
        study, n, repeats, end = self.study, self.options.power_chains, self.options.power_repeats, len(self.study.grid)
        index, labels = torch.arange(n * repeats), labellings(n, n, self.options.permutations, SHUFFLE)
        found = []
        for bias in self.options.power_bias:
            setting = Setting(variance="oracle", error=Imperfection(bias=bias))
            law, truth = study.links(setting)[-1].p_u, exact.marginal(study.data, 1.0, 0.0)
            scale = length_scale(truth)
            x0, _ = study.forward(len(index), setting=setting)
            x = study.simulate(setting, study.start(setting, index), index)
            tests = [_rejects(x[k], x0[k], scale, labels, self._alpha) for k in self._cuts(n, repeats)]
            rejected, values = zip(*tests, strict=True)
            row = self._row("power", end, rejected, values, exact.mmd2(law, truth, scale), n)
            found.append(row)
            verdict = "detected" if row["share"] >= POWER else "missed"
            yield row | {"size": bias, "level": self._alpha, "verdict": verdict}
        errors = [r["exact"] for r in found]
        most, least = (_bound(errors, [r[k] for r in found]) for k in ("low", "high"))
        yield {
            **self._place(end),
            "quantity": "smallest-detected",
            "n": n,
            "repeats": repeats,
            "level": self._alpha,
            "share": POWER,
            "exact": detectable(errors, [r["share"] for r in found]),
            "verdict": f"interpolated; by the intervals of the shares from {least} to {most}",
        }

    def bootstrapped(self, setting: Setting) -> Iterator[Row]:
        """The error that a rollout of 1..L steps from the true x_s shows, against that of the whole chain.

        Both are exact: the mean over s of MMD^2(law after the rollout, q) against MMD^2(p_theta, q) (Li and van der
        Schaar, 2024, Eq. 16, 17, with s uniform and one s a group).
        """
        links = self.study.links(setting)
        for p in self.places:
            truth = links[p - 1].q_u
            scale = length_scale(truth)
            whole = exact.mmd2(links[p - 1].p_u, truth, scale)
            for length in self.options.bootstrap_lengths:
                values = [exact.mmd2(_rolled(links[p - j : p]), truth, scale) for j in range(1, min(length, p) + 1)]
                seen = float(np.mean(values))
                yield {
                    **self._place(p),
                    "quantity": "bootstrap",
                    "size": float(length),
                    "exact": whole,
                    "mean": seen,
                    "verdict": f"shows {100 * seen / whole:.0f} % of the error" if whole > 1e-9 else "no error to show",
                }

    @property
    def _alpha(self) -> float:
        return 1 - self.options.confidence

    def _cuts(self, n: int, repeats: int) -> list[slice]:
        return [slice(r * n, (r + 1) * n) for r in range(repeats)]

    def _share(self, quantity: str, p: int, value: float, found: Sequence[Measured]) -> Row:
        """How often the interval of an estimate holds the exact value."""
        n, level = self.options.chains, self.options.confidence
        held = [low <= value <= high for low, high in (m.interval(level) for m in found)]
        row = self._row(quantity, p, held, [m.value for m in found], value, n)
        se = float(np.mean([m.se for m in found]))
        verdict = "too narrow" if row["high"] < level else "conservative" if row["low"] > level else "covers"
        if quantity == "mmd2" and value < AWAY * se:
            verdict = NEAR
        return row | {"level": level, "mean_se": se, "verdict": verdict}

    def _row(self, quantity: str, p: int, hits: Sequence[bool], values: Sequence[float], value: float, n: int) -> Row:
        sure = binomtest(int(sum(hits)), len(hits)).proportion_ci(SURE, "exact")
        return {
            **self._place(p),
            "quantity": quantity,
            "n": n,
            "repeats": len(hits),
            "share": float(np.mean(hits)),
            "low": float(sure.low),
            "high": float(sure.high),
            "exact": value,
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)),
        }

    def _place(self, p: int) -> Row:
        grid = self.study.grid
        return place(p, grid.times[p], grid.a[p], grid.s[p])

    def _watched(self, setting: Setting, x: Tensor, index: Tensor) -> "Watched":
        watched = Watched({*self.places}, {p - 1 for p in self.places})
        watched.x[len(self.study.grid)] = self.study.simulate(setting, x, index, observe=watched)
        return watched


class Watched:
    """An observer that keeps x at some places of the grid and the predicted eps at others."""

    def __init__(self, places: set[int], predictions: set[int]) -> None:
        self.places, self.predictions = places, predictions
        self.x: dict[int, Tensor] = {}
        self.eps: dict[int, Tensor] = {}

    def __call__(self, step: Step, x: Tensor, prediction: Prediction) -> None:
        if step.index in self.places:
            self.x[step.index] = x
        if step.index in self.predictions:
            self.eps[step.index] = prediction.eps


def detectable(errors: Sequence[float], shares: Sequence[float]) -> float:
    """The error above which POWER of the tests reject, linear in its root between the planted ones (in rising order).

    NaN where the planted errors are all found, or the largest is not.
    """
    missed = [i for i, share in enumerate(shares) if share < POWER]
    if not missed or missed[-1] == len(shares) - 1:
        return float("nan")
    i = missed[-1]
    weight = (POWER - shares[i]) / (shares[i + 1] - shares[i])
    return (sqrt(errors[i]) + weight * (sqrt(errors[i + 1]) - sqrt(errors[i]))) ** 2


def _bound(errors: Sequence[float], shares: Sequence[float]) -> str:
    """`detectable` as a text, which says on which side of the planted errors it lies where it is NaN."""
    value = detectable(errors, shares)
    if not isnan(value):
        return f"{value:.2g}"
    return f"below {errors[0]:.2g}" if min(shares) >= POWER else f"above {errors[-1]:.2g}"


def matrices(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian kernel matrices within x (N, ...), across, and within y."""
    x, y = x.flatten(1), y.flatten(1)
    one, across, other = (
        gaussian(d, scale) for d in (squared_distances(x), squared_distances(x, y), squared_distances(y))
    )
    return one, across, other


def _mmd(x: Tensor, y: Tensor, scale: float) -> Measured:
    found = estimate(*matrices(x, y, scale))
    return Measured(found.value, found.se)


def _rejects(x: Tensor, y: Tensor, scale: float, labels: Tensor, alpha: float) -> tuple[bool, float]:
    kernel = matrices(x, y, scale)
    value = estimate(*kernel).value
    return p_value(value, permutation_null(*kernel, labels)) <= alpha, value


def _rolled(links: Sequence[exact.Link]) -> exact.Normal:
    """The law after these steps from the true x_s."""
    law = links[0].q_t
    for link in links:
        law = exact.Normal(link.m @ law.mean + link.v, link.m @ law.covariance @ link.m.T + link.noise)
    return law
