"""Problems of the configuration: the denoiser in closed form is the one that is sampled, on both families of paths."""

import pytest
import torch

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.problems import COMPARED, Study
from pipeline_lib.config.models import Analytic, Problem
from pipeline_lib.exits import BadConfig

PATHS = {"vp": {"timesteps": 100}, "edm": {"path": "edm"}}
ERRORS = [
    {},
    {"bias": 0.1},
    {"scale": 0.9},
    {"pull": 0.3},
    {"images": 30},
    {"bias": 0.1, "scale": 1.1, "pull": 0.2, "images": 30},
    {"scale": 0.5, "low": 0.3, "high": 40.0},
]


def problem(path: str = "vp", nfe: int = 20, **values: object) -> Problem:
    data = [{"mean": [0.3, -0.2], "covariance": [[0.05, 0.02], [0.02, 0.03]]}]
    return Problem(**{"data": data, "diffusion": PATHS[path], "nfe": nfe, "settings": {"one": {}}, **values})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", ERRORS)
def test_denoiser_and_its_closed_form_agree(path: str, error: dict[str, float]) -> None:
    one = problem(path, settings={"one": {"error": error}})
    study, setting = Study(one, 0), one.settings["one"]
    x = 0.5 * torch.randn(7, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    denoiser, linear = study.denoiser(setting), study.linear(setting.error)
    for step in study.grid:
        noised = step.s * x + step.a * 0.2
        gain, offset = linear(step)
        expected = noised.flatten(1).double() @ gain.T + offset
        size = float(expected.abs().max()) + step.s / step.a
        assert torch.allclose(denoiser(noised, step.t).x0.flatten(1).double(), expected, atol=1e-5 * size)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variance", ["oracle", "fixed-large"])
def test_sampled_chains_have_the_exact_moments(path: str, variance: str) -> None:
    one = problem(path, settings={"one": {"variance": variance, "error": {"scale": 0.95}}})
    study, setting = Study(one, 1), one.settings["one"]
    index = torch.arange(20_000)
    x = study.simulate(setting, study.start(setting, index), index).flatten(1).double()
    law = study.links(setting)[-1].p_u
    assert ((x.mean(0) - law.mean).abs() < 4 * (law.covariance.diagonal() / len(x)).sqrt()).all()
    assert torch.allclose(torch.cov(x.T), law.covariance, atol=4 * float(law.covariance.max()) * (2 / len(x)) ** 0.5)


@pytest.mark.parametrize("path", PATHS)
def test_oracle_mean_and_variance_sample_the_data(path: str) -> None:
    """Up to what the prior leaves; a fixed variance leaves more."""
    study, setting = Study(problem(path), 0), problem(path).settings["one"]
    links = study.links(setting)
    assert exact.kl(links[-1].p_u, links[-1].q_u) <= exact.kl(links[0].p_t, links[0].q_t) + 1e-12
    fixed = problem(path, settings={"one": {"variance": "fixed-large"}})
    links = Study(fixed, 0).links(fixed.settings["one"])
    assert exact.kl(links[-1].p_u, links[-1].q_u) > 100 * exact.kl(links[0].p_t, links[0].q_t)


def test_mixture_chain_with_moment_matched_variance_has_the_right_moments() -> None:
    """For a mixture q(x_u | x_t) is not Gaussian, but with its mean and covariance the first two moments are kept."""
    data = [
        {"weight": 0.5, "mean": [-0.5], "covariance": [0.01]},
        {"weight": 0.5, "mean": [0.5], "covariance": [0.02]},
    ]
    one = problem(data=data, nfe=30)
    study, index = Study(one, 0), torch.arange(20_000)
    x = study.simulate(one.settings["one"], study.start(one.settings["one"], index), index).flatten().double()
    mean, covariance = study.data.moments()
    assert float(x.mean()) == pytest.approx(float(mean), abs=4 * float(covariance / len(x)) ** 0.5)
    assert float(x.var()) == pytest.approx(float(covariance), rel=0.02)


def test_a_contracting_chain_forgets_its_input() -> None:
    """Negative control: starts that differ by a standard deviation end closer together than with the exact chain."""
    ends = {}
    for pull in (0.0, 0.5):
        one = problem(settings={"one": {"error": {"pull": pull}}})
        study = Study(one, 0)
        moved = exact.Normal(study.prior.mean + 1, study.prior.covariance)
        plain, shifted = (study.links(one.settings["one"], start=start)[-1].p_u for start in (None, moved))
        ends[pull] = float((plain.mean - shifted.mean).norm())
    assert ends[0.5] < 0.2 * ends[0.0]


def test_a_covariance_from_more_images_is_nearer_to_the_truth() -> None:
    errors = []
    for images in (20, 2000):
        one = problem(settings={"one": {"error": {"images": images}}})
        last = Study(one, 0).links(one.settings["one"])[-1]
        errors.append(exact.kl(last.p_u, last.q_u))
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"data": [{"mean": [0.0], "covariance": [1.0]}, {"mean": [0.0, 0.0], "covariance": [1.0, 1.0]}]},
            "first mean",
        ),
        ({"data": [{"weight": 0.4, "mean": [0.0], "covariance": [1.0]}]}, "sum to 1"),
        ({"settings": {"one": {"error": {"images": 2}}}}, "needs more than error.images = 2"),
        ({"settings": {"one": {"error": {"low": 40.2, "high": 40.8}}}}, "no step of the grid is in the window"),
        ({"diffusion": PATHS["edm"], "settings": {"one": {"error": {"high": 0.001}}}}, "no step of the grid"),
    ],
)
def test_what_cannot_be_is_said_plainly(values: dict[str, object], sentence: str) -> None:
    one = problem(**values)
    with pytest.raises(BadConfig, match=sentence):
        Study(one, 0).denoiser(one.settings["one"])


def test_exact_errors_of_a_mixture_are_refused() -> None:
    data = [{"weight": 0.5, "mean": [m], "covariance": [0.01]} for m in (-0.5, 0.5)]
    one = problem(data=data)
    with pytest.raises(BadConfig, match="single Gaussian"):
        Study(one, 0).links(one.settings["one"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data": [{"mean": [0.0, 0.0], "covariance": [[1.0, 2.0], [2.0, 1.0]]}]}, "symmetric and positive"),
        ({"data": [{"mean": [0.0, 0.0], "covariance": [[1.0, 0.0], [0.5, 1.0]]}]}, "symmetric and positive"),
        ({"data": [{"mean": [0.0], "covariance": [0.0]}]}, "symmetric and positive"),
        ({"data": [{"mean": [0.0, 0.0], "covariance": [1.0]}]}, "must be 2x2, or its diagonal of 2"),
        ({"data": [{"mean": [0.0], "covariance": [[1.0], [1.0, 2.0]]}]}, "must be 1x1"),
        ({"nfe": 101}, "nfe is 101, but the path has 100 steps"),
        ({"diffusion": {"timesteps": 0}}, "greater than or equal to 2"),
    ],
)
def test_what_no_path_or_law_can_be_is_refused_before_anything_runs(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        problem(**values)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"leak": {"shares": [1.0]}}, "less than 1"),
        ({"coverage": {"bootstrap_lengths": [0]}}, "greater than or equal to 1"),
        ({"coverage": {"power_bias": [0.1, 0.05]}}, "must rise"),
    ],
)
def test_sections_refuse_what_has_no_meaning(section: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Analytic(problems={"one": problem()}, **section)


def test_mixtures_are_refused_where_laws_must_be_gaussian() -> None:
    data = [{"weight": 0.5, "mean": [m], "covariance": [0.01]} for m in (-0.5, 0.5)]
    with pytest.raises(ValueError, match=r"problems.two: exact errors need data of a single Gaussian, not a mixture"):
        Analytic(problems={"two": problem(data=data)})


def test_draws_of_problems_settings_and_purposes_are_independent() -> None:
    one, other = Study(problem(), 0), Study(problem(nfe=10), 0)
    setting = problem(settings={"one": {"error": {"bias": 0.1}}}).settings["one"]
    draws = [one.forward(50), one.forward(50, COMPARED), one.forward(50, setting=setting), other.forward(50)]
    draws.append(Study(problem(), 1).forward(50))
    for i, (x0, eps) in enumerate(draws):
        for y0, eta in draws[:i]:
            assert not torch.allclose(x0, y0)
            assert not torch.allclose(eps, eta)
    assert torch.equal(one.forward(50)[0], Study(problem(), 0).forward(50)[0])


@pytest.mark.parametrize("window", [{"low": 120.0}, {"low": 30.0, "high": 20.0}])
def test_a_window_outside_the_grid_is_refused(window: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"settings.one: no t of the path \(its end is 100\) is in the window"):
        problem(settings={"one": {"error": window}})
