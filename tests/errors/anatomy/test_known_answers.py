"""Every measure against closed forms: Gaussian data, a denoiser that errs in a known way, ancestral sampling."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.problems import COMPARED, Study
from pipeline_lib.config.models import Anatomy, Problem, Sampling
from pipeline_lib.errors.anatomy._views import Dissection, Pairs, Subject, starts
from pipeline_lib.errors.bandwidths import Bandwidths
from pipeline_lib.samplers._stage import draw

DATA = {"mean": [0.3, -0.2], "covariance": [[0.05, 0.02], [0.02, 0.03]]}
COUNT, NFE, LARGEST = 4000, 10, 4.5  # LARGEST: standard errors, over several hundred dependent values
FROZEN = Bandwidths([-10.0, 10.0], [1.0, 1.0], 1.0, 0.8, 0.105, 100)
PATHS = {"vp": {"timesteps": 100}, "edm": {"path": "edm", "sigma_max": 20.0, "sigma_min": 0.05}}
ERRORS = [{"bias": 0.1, "scale": 1.05}, {"scale": 0.95, "pull": 0.1}]
CASES = [("vp", "fixed-large", 0), ("vp", "fixed-small", 1), ("edm", "fixed-large", 0)]


def study_of(path: str, variance: str, error: int) -> tuple[Study, Problem]:
    setting = {"variance": variance, "error": ERRORS[error]}
    problem = Problem(data=[DATA], diffusion=PATHS[path], nfe=NFE, settings={"one": setting})
    return Study(problem, 0), problem


@cache
def dissected(path: str, variance: str, error: int) -> tuple[Study, Problem, Subject, pd.DataFrame]:
    """The whole record of one erring chain, made by the suite's own sampler."""
    study, problem = study_of(path, variance, error)
    sampling = Sampling(sampler={"name": "ancestral", "variance": variance}, nfe=[NFE], clip_x0=False)
    measures = [
        {"name": "leak", "kernel": "gaussian"} if m == "leak" else m for m in Anatomy.model_fields["measures"].default
    ]
    settings = Anatomy(measures=measures, observed=COUNT, images=1000, perturbed=500, starts=[0.5, 1.0])
    pairs = Pairs(*study.forward(COUNT, COMPARED))
    subject = Subject(study.denoiser(problem.settings["one"]), sampling, NFE, pairs, FROZEN, settings, batch=COUNT)
    parts = Dissection(subject, 0.95)
    index = torch.arange(COUNT)
    end = draw(
        *(subject.denoiser, sampling, NFE, index, (2, 1, 1), COUNT),
        observe=lambda step, x, prediction: parts.see(step.index, x),
    )
    parts.see(NFE, end)
    parts.finish()
    return study, problem, subject, pd.DataFrame(parts.rows)


Key = tuple[str, str, float | None, int]


def answers(path: str, variance: str, error: int) -> Iterator[tuple[Key, float]]:
    """(measure, reading, start, place) -> exact value."""
    study, problem, subject, _ = dissected(path, variance, error)
    setting, data_mean = problem.settings["one"], study.data.moments()[0]
    links = study.links(setting)
    for i, link in enumerate(links):
        sampling, training = (exact.eps_law(link, law) for law in (link.p_t, link.q_t))
        yield ("eps-norm", "sampling", None, i), exact.rms(sampling)
        yield ("eps-norm", "training", None, i), exact.rms(training)
        yield ("eps-norm", "ratio", None, i), exact.rms(sampling) / exact.rms(training)
        for name, eps, law in (("sampling", sampling, link.p_t), ("training", training, link.q_t)):
            yield ("mean-bias", f"eps-{name}", None, i), float(eps.mean.square().mean())
            bias = link.gain @ law.mean + link.offset - data_mean
            yield ("mean-bias", f"x0-{name}", None, i), float(bias.square().mean())
            yield ("variance", name, None, i), float(law.covariance.diagonal().mean())
        if not link.step.is_last:
            yield ("modular-error", "training", None, i), modular(study, link, None)
            if i:
                yield ("modular-error", "after-step", None, i), modular(study, link, links[i - 1])
    for i, (_, single) in enumerate(exact.deviations(study.data, links), start=1):
        gap = exact.spread_gap(single, study.grid.s[i])
        yield ("delta", "gap-step", None, i), gap
        yield ("delta", "delta-step", None, i), gap**2
    for start, first in starts(subject).items():
        law = exact.marginal(study.data, study.grid.a[first], study.grid.s[first])
        yield from after(study, subject, start, first, study.links(setting, study.grid.below(first), law))


def after(
    study: Study, subject: Subject, start: float, first: int, below: list[exact.Link]
) -> Iterator[tuple[Key, float]]:
    carried = torch.eye(2, dtype=torch.float64)
    for i, (link, (chain, _)) in enumerate(zip(below, exact.deviations(study.data, below), strict=True)):
        place = first + i + 1
        carried = link.m @ carried
        left = float((carried @ carried.T).trace() / 2) ** 0.5
        yield ("gain", "gain", start, place), left * subject.scale(first) / subject.scale(place)
        yield ("delta", "gap-chain", start, place), exact.spread_gap(chain, study.grid.s[place])
        yield ("leak", "mmd2", start, place), exact.mmd2(link.p_u, link.q_u, FROZEN.shared * subject.scale(place))
        if i:
            norms = [exact.rms(exact.eps_law(link, law)) for law in (link.p_t, link.q_t)]
            yield ("eps-norm", "ratio", start, place - 1), norms[0] / norms[1]


def modular(study: Study, link: exact.Link, before: exact.Link | None) -> float:
    """KL a pixel: of x_t = a x_0 + s eps, or of what one step has made of the x before, the law of x_0 - x_0(x_t)."""
    mean, covariance = study.data.moments()
    eye, step = torch.eye(2, dtype=torch.float64), link.step
    if before is None:
        of_x0, offset, noise = step.a * eye, torch.zeros(2, dtype=torch.float64), step.s**2 * eye
    else:
        of_x0, offset = before.step.a * before.m, before.v
        noise = before.step.s**2 * before.m @ before.m.T + before.noise
    matrix = eye - link.gain @ of_x0
    gap = matrix @ covariance @ matrix.T + link.gain @ noise @ link.gain.T
    shift = matrix @ mean - link.gain @ offset - link.offset
    squared = float(gap.trace() + shift.square().sum()) / 2
    ours, theirs = float(link.noise[0, 0]), step.posterior_variance
    return 0.5 * (step.c_x0**2 * squared / ours + theirs / ours - 1 - math.log(theirs / ours))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_estimate_is_its_closed_form(case: tuple[str, str, int]) -> None:
    rows = dissected(*case)[3]
    found = {
        (r.measure, r.reading, None if math.isnan(r.start) else r.start, int(r.step)): r
        for r in rows[rows["step"].notna()].itertuples()
    }
    known = dict(answers(*case))
    far = {
        key: (found[key].value, value, (found[key].value - value) / found[key].se)
        for key, value in known.items()
        if key[1] != "delta-step"
    }
    assert {k: v for k, v in far.items() if abs(v[2]) > LARGEST} == {}
    inside = [found[key].low <= value <= found[key].high for key, value in known.items() if key[1] != "delta-step"]
    assert sum(inside) / len(inside) > 0.75  # of 95 % intervals: all t share their samples
    for key in known:
        if key[1] == "delta-step":
            assert found[key].value == pytest.approx(found[("delta", "gap-step", *key[2:])].value ** 2)


def test_chains_from_true_x_t_start_where_they_say() -> None:
    _, _, subject, rows = dissected(*CASES[0])
    assert starts(subject) == {1.0: 0, 0.5: 5}
    assert subject.grid.times[5] == 45.0
    gain = rows[rows["measure"].eq("gain")]
    assert gain.groupby("start")["step"].min().to_dict() == {0.5: 5, 1.0: 0}
    assert gain[gain["step"].isin([0, 5])].query("(start == 1 and step == 0) or (start == .5 and step == 5)")[
        "value"
    ].tolist() == pytest.approx([1, 1], rel=1e-5)


def test_errors_of_a_linear_denoiser_on_gaussian_data_pass_as_normal() -> None:
    rows = dissected(*CASES[0])[3]
    shares = rows[rows["measure"].eq("normality")]["value"]
    assert len(shares) == NFE
    assert 0.0 <= shares.mean() < 0.15  # 5 %; 2 pixels, 5 sets, 10 places that share their images


def test_norms_and_the_noise_level_are_those_of_x_0_with_noise_of_s_over_a() -> None:
    _, _, subject, rows = dissected(*CASES[0])
    places, pairs = range(NFE), subject.pairs
    ratios = [subject.grid.s[i] / subject.grid.a[i] for i in places]
    norms = np.array([(pairs.x0 + ratio * pairs.eps).flatten(1).norm(dim=1).log().numpy() for ratio in ratios])
    expected = np.corrcoef(np.log(ratios).repeat(COUNT), norms.flatten())[0, 1]
    found = rows[rows["measure"].eq("norm-correlation") & rows["step"].isna()].set_index("reading")["value"]
    assert found["training"] == pytest.approx(expected, abs=1e-5)
    assert found["sampling"] == pytest.approx(expected, abs=0.05)


def test_without_measures_the_network_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, subject, _ = dissected(*CASES[0])
    object.__setattr__(subject, "settings", Anatomy(measures=["variance"]))
    monkeypatch.setattr(Subject, "predict", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(Subject, "simulate", lambda *_: pytest.fail("chains were made"))
    parts = Dissection(subject, 0.95)
    parts.see(0, subject.true(0, COUNT))
    parts.finish()
    assert {row["measure"] for row in parts.rows} == {"variance"}


def tail(corrections: list[dict[str, object]], sampler: dict[str, object]) -> tuple[Tensor, Tensor]:
    """x_0 of whole chains, and of chains that go on from their x_t at place 4."""
    study, problem = study_of("vp", "fixed-small", 0)
    denoiser = study.denoiser(problem.settings["one"])
    sampling = Sampling(sampler=sampler, nfe=[NFE], clip_x0=False, corrections=corrections)
    about = (denoiser, sampling, NFE, torch.arange(6), (2, 1, 1), 6)
    seen: dict[int, Tensor] = {}
    whole = draw(*about, observe=lambda step, x, prediction: seen.__setitem__(step.index, x))
    assert torch.equal(draw(*about, start=seen[3], first=3, end=4), seen[4])
    return whole, draw(*about, start=seen[4], first=4)


@pytest.mark.parametrize(
    ("corrections", "sampler"),
    [
        ([], {"name": "ancestral"}),
        ([{"name": "epsilon-scaling", "k": 0.01, "b": 1.0}], {"name": "ddim", "eta": 0.5}),
    ],
)
def test_a_chain_that_starts_midway_is_the_rest_of_the_whole_chain(
    corrections: list[dict[str, object]], sampler: dict[str, object]
) -> None:
    whole, rest = tail(corrections, sampler)
    assert torch.equal(whole, rest)


def test_times_that_a_shift_chooses_are_recorded() -> None:
    """Window 0 in the paper's reading is a shift by one step (`time_shift.py`), down to the cutoff."""
    study, problem = study_of("vp", "fixed-small", 0)
    shift = {"name": "time-shift", "window": 0, "cutoff": 30}
    sampling = Sampling(sampler={"name": "ancestral"}, nfe=[NFE], clip_x0=False, corrections=[shift])
    settings = Anatomy(measures=["shifted-time"], observed=20, images=10, perturbed=8)
    pairs = Pairs(*study.forward(20))
    parts = Dissection(Subject(study.denoiser(problem.settings["one"]), sampling, NFE, pairs, FROZEN, settings), 0.95)
    for place in range(NFE + 1):
        parts.see(place, parts.subject.true(place, 20))
    parts.finish()
    rows = pd.DataFrame(parts.rows).set_index(["reading", "step"])
    assert rows["start"].eq(1).all()
    assert rows.loc["start", "value"].tolist() == pytest.approx([11] * 7)  # T = 100 in 10 steps
    assert rows.loc["start", "t"].tolist() == [89, 78, 67, 56, 45, 34, 23]
