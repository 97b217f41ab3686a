"""PFGM++ on two points: its optimum is the posterior mean under Student t noise, not under normal noise."""

import pytest
import torch
from torch import Tensor

from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.objectives import Batch, edm, pfgmpp

SHAPE, FREEDOM = (2, 2, 2), 3
CONFIG = Diffusion(path="pfgm", prediction="edm", extra_dimensions=FREEDOM, log_sigma_mean=0.0, log_sigma_std=0.5)


class Posterior:
    """E[x_0 | x] for x_0 = +1 or -1 in all pixels, under noise of density (1 + |eps|^2 / D)^-(N + D)/2, or normal;
    times a factor."""

    path, config = paths.build(CONFIG), CONFIG

    def __init__(self, freedom: float, factor: float = 1.0) -> None:
        self.freedom, self.factor = freedom, factor

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        sigma = t[:, None, None, None]
        up, down = (((x - sign) / sigma).double().square().sum((1, 2, 3)) for sign in (1, -1))
        if self.freedom == float("inf"):
            log_odds = (down - up) / 2
        else:
            log_odds = (8 + self.freedom) / 2 * ((1 + down / self.freedom) / (1 + up / self.freedom)).log()
        x0 = self.factor * torch.tanh(log_odds / 2).float()[:, None, None, None].expand_as(x)
        return Prediction(x, torch.ones_like(sigma), sigma, x0, "x0")


def batch(count: int, step: int) -> Batch:
    sign = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    return Batch(sign[:, None, None, None].expand(-1, *SHAPE), None, torch.arange(count), step, None, Noise(0))


def excess(denoiser: Posterior, objective: edm.EDM) -> tuple[float, float]:
    """Loss over that of the posterior under this noise, with its standard error."""
    best, drawn = Posterior(FREEDOM), batch(40_000, 0)
    found = [objective.terms(one, drawn)["denoising"].double() for one in (denoiser, best)]
    gap = found[0] - found[1]
    return float(gap.mean()), float(gap.std()) / len(gap) ** 0.5


@pytest.mark.parametrize(
    "other", [Posterior(float("inf")), Posterior(FREEDOM + 20), Posterior(0.3), Posterior(3, 0.95)]
)
def test_its_optimum_is_the_posterior_under_its_own_noise(other: Posterior) -> None:
    gap, error = excess(other, pfgmpp.build(pfgmpp.Options()))
    assert gap > 4 * error


def test_its_gradient_vanishes_there() -> None:
    """Along the factor and along what another law of noise would change."""
    objective, drawn = pfgmpp.build(pfgmpp.Options()), batch(40_000, 1)
    for one, other in ((Posterior(3, 1.01), Posterior(3, 0.99)), (Posterior(3.1), Posterior(2.9))):
        slope = objective.terms(one, drawn)["denoising"].double() - objective.terms(other, drawn)["denoising"].double()
        assert abs(float(slope.mean())) < 4 * float(slope.std()) / len(slope) ** 0.5


def test_clipping_is_of_training_alone_and_of_what_lies_outside() -> None:
    """Half of all B are outside of [0.4, 0.6]: the loss of those alone changes."""
    drawn, wide = batch(2000, 0), pfgmpp.build(pfgmpp.Options(beta_clip=0.4))
    plain, clipped = (one.noise(Posterior(3), drawn) for one in (pfgmpp.build(pfgmpp.Options()), wide))
    odds = clipped.flatten(1).double().square().sum(1) / FREEDOM
    assert float(odds.min()) == pytest.approx(0.4 / 0.6, rel=1e-4)
    assert float(odds.max()) == pytest.approx(0.6 / 0.4, rel=1e-4)
    same = (plain == clipped).flatten(1).all(1)
    assert 0 < int(same.sum()) < 1000
