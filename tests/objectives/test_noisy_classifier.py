"""The loss of a classifier of noisy images: what it is for networks whose answers are known."""

from math import log, pi, sqrt

import pytest
import torch
from torch import Tensor

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import Batch, noisy_classifier

DIFFUSION = Diffusion(timesteps=20)
PATH = paths.build(DIFFUSION)
MEAN, SPREAD = 0.5, 0.2  # x_0 of class y is N(+-MEAN, SPREAD^2)
COUNT = 100_000


class Posterior(torch.nn.Module):
    """The exact logits of two Gaussians, times `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = t * PATH.timesteps / 1000 + 1  # undoes the path's condition
        a, s = PATH.coefficients(times)
        logit = 2 * a * MEAN * x.flatten() / (a**2 * SPREAD**2 + s**2)
        return self.factor * torch.stack((torch.zeros_like(logit), logit), 1)


def terms(factor: float) -> dict[str, Tensor]:
    labels = torch.arange(COUNT) % 2
    x0 = (2 * labels - 1) * MEAN + SPREAD * torch.randn(COUNT, generator=torch.Generator().manual_seed(1))
    batch = Batch(x0[:, None, None, None].float(), labels, torch.arange(COUNT), 0, None, Noise(0))
    denoiser = Denoiser(Posterior(factor), PATH, DIFFUSION)
    return noisy_classifier.build(noisy_classifier.Options()).terms(denoiser, batch)


def exact() -> tuple[float, float]:
    """Mean over t of H(y | x_t) in nats and of the error of the best guess, by quadrature."""
    entropy = wrong = 0.0
    for t in range(1, PATH.timesteps + 1):
        a, s = (float(c) for c in PATH.coefficients(torch.tensor([float(t)])))
        spread = sqrt(a**2 * SPREAD**2 + s**2)
        x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
        of = [torch.exp(-((x - m) ** 2) / (2 * spread**2)) / (spread * sqrt(2 * pi)) for m in (-a * MEAN, a * MEAN)]
        both = (of[0] + of[1]) / 2
        p = (of[1] / 2 / both.clamp(min=1e-300)).clamp(1e-12, 1 - 1e-12)
        entropy += float(torch.trapezoid(both * -(p * p.log() + (1 - p) * (1 - p).log()), x)) / PATH.timesteps
        wrong += float(torch.trapezoid(both * torch.minimum(p, 1 - p), x)) / PATH.timesteps
    return entropy, wrong


def test_the_exact_posterior_has_the_conditional_entropy() -> None:
    """E[-ln p(y | x_t)] over uniform t is H(y | x_t), and its errors are those of the best guess."""
    found, (entropy, wrong) = terms(1.0), exact()
    assert found["cross-entropy"].shape == found["wrong"].shape == (COUNT,)
    assert float(found["cross-entropy"].mean()) == pytest.approx(entropy, abs=0.004)  # 3 standard errors
    assert float(found["wrong"].mean()) == pytest.approx(wrong, abs=0.004)


def test_the_exact_posterior_is_the_best() -> None:
    best, timid, bold = (float(terms(f)["cross-entropy"].mean()) for f in (1.0, 0.8, 1.25))
    assert best < min(timid, bold)


def test_who_has_no_opinion_pays_the_entropy_of_the_labels() -> None:
    assert torch.allclose(terms(0.0)["cross-entropy"], torch.full((COUNT,), log(2)))


def test_errors_are_shown_and_not_minimised() -> None:
    assert noisy_classifier.build(noisy_classifier.Options()).weights == {"cross-entropy": 1.0, "wrong": 0.0}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"network": {"name": "unet"}}, "trains the network encoder"),
        ({"network": {"name": "encoder", "conditional": True}}, "the label that it shall find"),
        (
            {"network": {"name": "encoder"}, "diffusion": {"path": "edm", "prediction": "edm"}},
            "a path with discrete steps",
        ),
    ],
)
def test_runs_that_do_not_fit_are_refused(values: dict[str, dict[str, object]], sentence: str) -> None:
    run = parse(Run, {"objective": "noisy-classifier", **values})
    with pytest.raises(BadConfig, match=f"^here: .*{sentence}"):
        noisy_classifier.check(noisy_classifier.Options(), run, "here")


def test_a_classifier_serves_no_other_objective() -> None:
    with pytest.raises(BadConfig, match="network encoder is a classifier, which objective ddpm cannot train"):
        parse(Run, {"objective": "ddpm", "network": {"name": "encoder"}})
