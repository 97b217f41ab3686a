"""Exact errors: identities that must hold, and the sampler against the recursion."""

import pytest
import torch

from pipeline_lib.analytic import exact
from pipeline_lib.analytic.mixtures import gaussian, mixture
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.analytic.problems import Study
from pipeline_lib.config.models import Diffusion, Problem, Sampling, Setting
from pipeline_lib.diffusion import paths
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers._stage import draw

PATH = paths.build(Diffusion(timesteps=100))
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.05, 0.02], [0.02, 0.03]]))
EYE = torch.eye(2, dtype=torch.float64)


def erring(scale: float, bias: float) -> exact.Linear:
    """The exact denoiser with eps scaled and shifted."""
    return exact.erring(exact.exact_denoiser(DATA), scale, bias)


def links(denoiser: exact.Linear, variance: exact.Covariance, nfe: int = 20) -> list[exact.Link]:
    return list(exact.chain(DATA, PATH.grid(nfe), denoiser, variance, exact.prior(PATH, 2)))


@pytest.mark.parametrize("nfe", [3, 20, 100])
def test_oracle_mean_and_variance_leave_only_the_error_of_the_prior(nfe: int) -> None:
    chain = links(exact.exact_denoiser(DATA), exact.oracle_variance(DATA), nfe)
    prior = exact.kl(chain[0].p_t, chain[0].q_t)
    assert prior > 1e-8  # E_{T+1} is not zero at finite T
    for link in chain:
        assert exact.modular_error(link) == pytest.approx(0, abs=1e-9)
        assert exact.cumulative_error(link) <= prior + 1e-12


def test_fixed_variance_leaves_an_error_at_the_data_end() -> None:
    chain = links(exact.exact_denoiser(DATA), exact.fixed_variance("fixed-large", 2), 20)
    assert exact.cumulative_error(chain[-2]) > 100 * exact.kl(chain[0].p_t, chain[0].q_t)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.95, 0.0), (1.02, 0.05)])
def test_chain_rule_holds_at_every_step(variance: str, scale: float, bias: float) -> None:
    """E_t = E_{t+1} + E_t^mod - gap, an identity of the joint law; so E_t never exceeds E_{t+1} + E_t^mod."""
    chain = links(erring(scale, bias), exact.fixed_variance(variance, 2))
    for link in chain[:-1]:  # the last step has no reverse variance, so its modular error is infinite
        before, after = exact.kl(link.p_t, link.q_t), exact.cumulative_error(link)
        gap = exact.backward_gap(link)
        assert after == pytest.approx(before + exact.modular_error(link) - gap, rel=1e-7, abs=1e-9)
        assert gap >= -1e-12


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
@pytest.mark.parametrize("under", ["p", "q"])
def test_modular_error_equals_monte_carlo(direction: str, under: str) -> None:
    link = links(erring(0.9, 0.1), exact.fixed_variance("fixed-large", 2))[12]
    law = link.p_t if under == "p" else link.q_t
    generator = torch.Generator().manual_seed(0)
    x = (
        torch.distributions.MultivariateNormal(law.mean, law.covariance).mean
        + torch.randn(20_000, 2, dtype=torch.float64, generator=generator) @ torch.linalg.cholesky(law.covariance).T
    )
    model = torch.distributions.MultivariateNormal(x @ link.m.T + link.v, link.noise)
    truth = torch.distributions.MultivariateNormal(x @ link.m_exact.T + link.v_exact, link.noise_exact)
    pair = (model, truth) if direction == "p||q" else (truth, model)
    divergences = torch.distributions.kl_divergence(*pair)
    spread = float(divergences.std()) / len(x) ** 0.5
    assert exact.modular_error(link, direction, under) == pytest.approx(float(divergences.mean()), abs=4 * spread)


def test_mmd_equals_the_double_mean_of_the_kernel() -> None:
    p, q = exact.Normal(torch.zeros(2).double(), 0.5 * EYE), exact.Normal(torch.tensor([0.4, 0.0]).double(), EYE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3000, 2, dtype=torch.float64, generator=generator)
    x, y = x * 0.5**0.5, y + q.mean

    def k(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.exp(-torch.cdist(one, other).square() / (2 * 0.8**2))

    n = len(x)
    estimate = (k(x, x).sum() + k(y, y).sum() - 2 * n) / (n * (n - 1)) - 2 * k(x, y).mean()
    assert exact.mmd2(p, q, 0.8) == pytest.approx(float(estimate), rel=0.1)
    assert exact.mmd2(p, p, 0.8) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.97, 0.05)])
def test_the_sampler_meets_the_recursion(scale: float, bias: float) -> None:
    """Oracle and imperfect denoiser through the real sampler: mean and covariance to Monte-Carlo error."""
    sampling = Sampling(sampler={"name": "ancestral", "variance": "fixed-small"}, nfe=[20], images=2, clip_x0=False)
    denoiser = Erring(Oracle(PATH, DATA), bias, scale)
    x = draw(denoiser, sampling, 20, torch.arange(20_000), (2, 1, 1), 20_000).flatten(1).double()
    end = links(erring(scale, bias), exact.fixed_variance("fixed-small", 2))[-1].p_u
    spread = (end.covariance.diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - end.mean).abs() < 4 * spread).all()
    assert torch.allclose(torch.cov(x.T), end.covariance, atol=4 * float(end.covariance.max()) * (2 / len(x)) ** 0.5)


def test_an_error_in_a_window_acts_there_alone() -> None:
    inside = Oracle(PATH, DATA)
    wrong = Erring(inside, bias=0.5, low=40, high=60)
    x = torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    for t in (39.0, 40.0, 60.0, 61.0):
        gap = (wrong(x, t).eps - inside(x, t).eps).abs()
        assert torch.allclose(gap, torch.full_like(gap, 0.5 if 40 <= t <= 60 else 0.0), atol=1e-4)
    with pytest.raises(BadConfig, match=r"the window \[120, 130\] holds no t of the path \(its end is 100\)"):
        Erring(inside, low=120, high=130)


def test_oracle_transition_covariance_of_a_mixture_equals_monte_carlo() -> None:
    data = mixture(torch.tensor([0.5, 0.5]), torch.tensor([[-0.5], [0.5]]), torch.tensor([[[0.01]], [[0.01]]]))
    oracle, step = Oracle(PATH, data), PATH.grid(5).step(2)
    x = torch.tensor([[[[0.1]]]])
    grid = torch.linspace(-1.5, 1.5, 40_001, dtype=torch.float64)
    weight = torch.softmax(data.log_density(grid[:, None]) - 0.5 * ((0.1 - step.a * grid) / step.s) ** 2, 0)
    mean = (weight * grid).sum()
    expected = step.posterior_variance + step.c_x0**2 * float((weight * (grid - mean) ** 2).sum())
    assert float(oracle.transition_covariance(x, step)) == pytest.approx(expected, rel=1e-6)


def test_deviations_equal_sampled_ones() -> None:
    """x_u - a_u x_0 of the real sampler's chains, which start from the noised x_0: mean and spread of every pixel."""
    study, setting = study_of(scale=0.9, bias=0.1, variance="fixed-large")
    x0, eps = study.forward(20_000)
    seen: dict[int, torch.Tensor] = {}
    end = study.simulate(
        setting,
        study.grid.a[0] * x0 + study.grid.s[0] * eps,
        torch.arange(len(x0)),
        observe=lambda step, x, p: seen.update({step.index: x}),
    )
    seen[len(study.grid)] = end
    links = study.links(setting)
    laws = list(exact.deviations(study.data, links))
    for place in (5, 15, len(study.grid)):
        sampled = (seen[place] - study.grid.a[place] * x0).flatten(1).double()
        law = laws[place - 1][0]
        assert ((sampled.mean(0) - law.mean).abs() < 4 * (law.covariance.diagonal() / len(x0)).sqrt()).all()
        assert torch.allclose(sampled.std(0), law.covariance.diagonal().sqrt(), rtol=4 / (2 * len(x0)) ** 0.5)
        gap = float(sampled.std(0).mean()) - study.grid.s[place]
        assert gap == pytest.approx(exact.spread_gap(law, study.grid.s[place]), abs=0.01)


def test_a_single_exact_step_spreads_as_the_gaussian_model_says() -> None:
    """Ning et al. (2024): a step whose x_0 misses by e eps' spreads x_u by (c_x0 e)^2 more than q(x_u | x_0).

    With a denoiser that knows x_0 but for independent noise there is no other term: here the data are one point, so
    the exact denoiser returns it, and the error is planted as a variance of the step.
    """
    point = gaussian(torch.zeros(1), 1e-12 * torch.eye(1))
    step, e = PATH.grid(100).step(50), 0.3
    link = next(
        link
        for link in exact.chain(
            point,
            PATH.grid(100),
            exact.exact_denoiser(point),
            lambda s: (s.posterior_variance + (s.c_x0 * e) ** 2) * torch.eye(1, dtype=torch.float64),
            exact.prior(PATH, 1),
        )
        if link.step.index == step.index
    )
    single = next(iter(exact.deviations(point, [link])))[1]
    variance = float(1 - PATH.alpha_bar[int(step.t_next)]) + (step.c_x0 * e) ** 2
    assert float(single.covariance) == pytest.approx(variance, rel=1e-9)
    assert exact.spread_gap(single, step.s_next) > 0


def test_eps_of_the_exact_denoiser_is_minus_s_times_the_score() -> None:
    link = links(exact.exact_denoiser(DATA), exact.oracle_variance(DATA))[10]
    law = exact.eps_law(link, link.q_t)
    expected = link.step.s**2 * torch.linalg.inv(link.q_t.covariance)  # covariance of s C^-1 (x - mean)
    assert torch.allclose(law.covariance, expected)
    assert torch.allclose(law.mean, torch.zeros(2).double(), atol=1e-12)
    assert exact.rms(law) == pytest.approx(float(expected.trace()) ** 0.5)


def test_entropy_and_degenerate_laws() -> None:
    law = exact.Normal(torch.zeros(2).double(), 0.3 * EYE)
    assert exact.entropy(law) == pytest.approx(
        float(torch.distributions.MultivariateNormal(law.mean, law.covariance).entropy())
    )
    flat = exact.Normal(law.mean, torch.zeros(2, 2).double())
    assert exact.kl(flat, law) == exact.kl(law, flat) == float("inf")
    last = links(exact.exact_denoiser(DATA), exact.fixed_variance("fixed-small", 2))[-1]
    assert exact.modular_error(last) == float("inf")  # the last step has no reverse variance


def test_the_exact_transition_stretches_no_error() -> None:
    """In units of q an exact step multiplies an input error by a canonical correlation, which is at most 1."""
    for link in links(exact.exact_denoiser(DATA), exact.oracle_variance(DATA)):
        assert 0 < exact.stretch(link.m, link.q_t, link.q_u) <= 1 + 1e-9
    assert max(exact.stretch(x.m, x.q_t, x.q_u) for x in links(erring(0.5, 0.0), exact.oracle_variance(DATA))) > 1


def study_of(variance: str = "oracle", **error: float) -> tuple[Study, Setting]:
    problem = Problem(
        data=[{"mean": [0.3, -0.2], "covariance": [[0.05, 0.02], [0.02, 0.03]]}],
        diffusion={"timesteps": 100},
        nfe=20,
        settings={"one": {"variance": variance, "error": error}},
    )
    return Study(problem, 0), problem.settings["one"]
