"""The PFGM++ path: its noise against the definition of the paper, its limit, and where it does not serve."""

from math import sqrt

import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline_lib.config.models import Diffusion, Problem, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.objectives import pfgmpp

COUNT, SHAPE = 20_000, (3, 2, 2)
N = 12


def path(freedom: int) -> paths.GaussianPath:
    return paths.build(Diffusion(path="pfgm", prediction="edm", extra_dimensions=freedom))


def drawn(freedom: int, count: int = COUNT, seed: int = 0) -> Tensor:
    return path(freedom).eps(Noise(seed), Stream.NOISE, torch.arange(count), 5, SHAPE).flatten(1)


@pytest.mark.parametrize("freedom", [1, 4, 128])
def test_the_radius_is_that_of_the_paper(freedom: int) -> None:
    """R = r (B / (1 - B))^(1/2) with B ~ Beta(N/2, D/2) and r = sigma sqrt(D) (Xu et al., 2023), at sigma = 1: B."""
    odds = drawn(freedom).double().square().sum(1) / freedom
    assert stats.kstest((odds / (1 + odds)).numpy(), stats.beta(N / 2, freedom / 2).cdf).pvalue > 1e-3
    wrong = stats.beta(N / 2, (freedom + 1) / 2)
    assert freedom > 4 or stats.kstest((odds / (1 + odds)).numpy(), wrong.cdf).pvalue < 1e-6


def test_the_direction_is_uniform_and_apart_from_the_radius() -> None:
    eps = drawn(4)
    radius = eps.norm(dim=1, keepdim=True)
    unit = eps / radius
    assert float(unit.mean(0).abs().max()) < 5 / sqrt(COUNT * N)
    covariance = unit.T @ unit / COUNT
    assert float((covariance - torch.eye(N) / N).abs().max()) < 6 / N / sqrt(COUNT)
    ranks = stats.spearmanr(radius[:, 0].numpy(), unit[:, 0].abs().numpy())
    assert ranks.pvalue > 1e-3


def test_a_pixel_is_student_t() -> None:
    for freedom in (1, 4):
        assert stats.kstest(drawn(freedom)[:, 7].numpy(), stats.t(freedom).cdf).pvalue > 1e-3
    assert float(drawn(4).var()) == pytest.approx(4 / (4 - 2), rel=0.15)


def test_edm_is_the_limit_of_large_d() -> None:
    """With the same normal numbers the mean squared distance to eps of EDM is 1 / (2 D) in the limit."""
    normal = Noise(0).normal(Stream.NOISE, torch.arange(400), 5, SHAPE).flatten(1)
    for freedom in (100, 1000, 5000):
        distance = (drawn(freedom, 400) - normal).square().sum() / normal.square().sum()
        assert float(distance) * 2 * freedom == pytest.approx(1, rel=0.3)


def test_numbers_depend_on_seed_sample_and_step_alone() -> None:
    whole = drawn(8, 10)
    part = path(8).eps(Noise(0), Stream.NOISE, torch.tensor([7, 3]), 5, SHAPE).flatten(1)
    assert torch.equal(part, whole[[7, 3]])
    assert not torch.equal(drawn(8, 10, seed=1), whole)
    other = path(8).eps(Noise(0), Stream.NOISE, torch.arange(10), 6, SHAPE).flatten(1)
    radii = [x.double().norm(dim=1) for x in (whole, other)]
    assert not torch.isclose(*radii).any()


def test_normal_paths_draw_the_normal_numbers_bit_for_bit() -> None:
    normal = Noise(3).normal(Stream.PRIOR, torch.arange(9), 2, SHAPE, 4)
    for config in (Diffusion(), Diffusion(path="edm", prediction="edm")):
        assert torch.equal(paths.build(config).eps(Noise(3), Stream.PRIOR, torch.arange(9), 2, SHAPE, 4), normal)


def test_everything_else_is_edm() -> None:
    edm, t = paths.build(Diffusion(path="edm", prediction="edm")), torch.tensor([0.1, 3.0])
    assert path(16).grid(18) == edm.grid(18)
    assert path(16).prior_std == edm.prior_std
    assert torch.equal(path(16).draw_times(t / 4), edm.draw_times(t / 4))
    assert torch.equal(path(16).condition(t), edm.condition(t))


def test_clipping_holds_beta_and_keeps_the_direction() -> None:
    eps, clip = drawn(1), 1e-3
    found = pfgmpp.clipped(eps.reshape(-1, *SHAPE), 1, clip).flatten(1)
    odds = [x.double().square().sum(1) for x in (eps, found)]
    before, after = (o / (1 + o) for o in odds)
    outside = (before < clip) | (before > 1 - clip)
    assert 0 < float(outside.double().mean()) < 0.5
    assert torch.allclose(after, before.clamp(clip, 1 - clip), rtol=1e-4)
    assert torch.equal(found[~outside], eps[~outside])
    assert torch.allclose(found / found.norm(dim=1, keepdim=True), eps / eps.norm(dim=1, keepdim=True), atol=1e-5)


def test_clipping_does_nothing_to_what_was_published() -> None:
    """N = 3072 and D = 128 or 2048: a draw in 1e15 or fewer is outside of [1e-3, 1 - 1e-3]; at D = 2 every second."""
    for freedom, most in ((128, 1e-15), (2048, 1e-15)):
        law = stats.beta(3072 / 2, freedom / 2)
        assert law.cdf(1e-3) + law.sf(1 - 1e-3) < most
    assert stats.beta(3072 / 2, 1).sf(1 - 1e-3) > 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"extra_dimensions": 0}, "greater than or equal to 1"),
        ({"prediction": "eps"}, "does not serve path pfgm"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], sentence: str) -> None:
    values = {"path": "pfgm", "prediction": "edm", **change}
    with pytest.raises(ValueError, match=sentence):
        Run(diffusion=values, objective="pfgmpp")


def test_objectives_with_normal_noise_are_refused() -> None:
    for objective in ("ddpm", "edm"):
        with pytest.raises(ValueError, match=rf"objective {objective} draws Gaussian noise"):
            Run(diffusion={"path": "pfgm", "prediction": "edm"}, objective=objective)


def test_known_answers_are_refused() -> None:
    data = [{"mean": [0.0], "covariance": [1.0]}]
    with pytest.raises(ValueError, match="known answers are those of Gaussian noise"):
        Problem(data=data, diffusion={"path": "pfgm", "prediction": "edm"}, settings={"one": {}})
