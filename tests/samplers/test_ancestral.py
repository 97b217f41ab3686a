"""Contracts of drawing with a sampler: batches, counted calls, the observer, clipping."""

import pytest
import torch

from pipeline_lib.config.models import Diffusion, Sampling
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.exits import BadConfig
from pipeline_lib.samplers._stage import Counted, draw

PATH = paths.build(Diffusion(timesteps=100))
MEAN, STD = 0.3, 0.2


class Exact:
    """The posterior mean of data N(MEAN, STD^2), pixel by pixel."""

    path = PATH

    def __call__(self, x: torch.Tensor, t: torch.Tensor | float, labels: torch.Tensor | None = None) -> Prediction:
        t = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        a, s = (c[:, None, None, None] for c in PATH.coefficients(t))
        x0 = MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (x - a * MEAN)
        return Prediction(x, a, s, x0, "x0")


def sampling() -> Sampling:
    return Sampling(sampler={"name": "ancestral"}, nfe=[1], images=2, clip_x0=False)


def test_calls_are_counted_per_image() -> None:
    counted = Counted(Exact(), 7)
    draw(counted, sampling(), 20, torch.arange(50), (1, 2, 2), 7)
    assert counted.images / 50 == 20


def test_samples_do_not_depend_on_the_batch() -> None:
    """The network sees other batch shapes, so the last bits may differ: at most one level on 0.1 % of pixels."""
    from pipeline_lib.config.models import Run
    from pipeline_lib.data.prepared import to_uint8
    from pipeline_lib.networks import trained
    from tests.conftest import tiny_run

    config = {k: v for k, v in tiny_run().items() if k != "seed"}
    denoiser = trained.build(Run.model_validate(config), (1, 8, 8), 0)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    whole = to_uint8(draw(denoiser, sampling(), 8, torch.arange(60), (1, 8, 8), 60)).int()
    parts = [to_uint8(draw(denoiser, sampling(), 8, torch.arange(i, i + 7), (1, 8, 8), 3)).int() for i in (0, 7, 49)]
    apart = (torch.cat(parts) - torch.cat((whole[:14], whole[49:56]))).abs()
    assert int(apart.max()) <= 1
    assert float((apart > 0).float().mean()) <= 1e-3


def test_observer_sees_every_time_of_the_grid_and_all_chains() -> None:
    seen = []
    draw(Exact(), sampling(), 5, torch.arange(9), (1, 2, 2), 4, observe=lambda s, x, p: seen.append((s.t, len(x))))
    assert seen == [(t, 9) for t in PATH.grid(5).times[:-1]]


class Wide(Exact):
    """Predicts x_0 far outside of the range of images."""

    def __call__(self, x: torch.Tensor, t: torch.Tensor | float, labels: torch.Tensor | None = None) -> Prediction:
        exact = super().__call__(x, t, labels)
        return exact.with_x0(8 * exact.x0)


def test_clipping_keeps_images_in_range() -> None:
    clipped = sampling().model_copy(update={"clip_x0": True})
    x, free = (draw(Wide(), s, 1, torch.arange(500), (1, 2, 2), 500) for s in (clipped, sampling()))
    assert float((free.abs() > 1).float().mean()) > 0.5
    assert torch.allclose(x, free.clamp(-1, 1), atol=1e-5)


def test_clipping_acts_on_the_prediction_of_every_step() -> None:
    """The mean of x_u is made from the clipped x_0: |x_u| is at most what |x_0| = 1 allows."""
    clipped, seen = sampling().model_copy(update={"clip_x0": True}), {}
    draw(Wide(), clipped, 5, torch.arange(500), (1, 2, 2), 500, observe=lambda s, x, p: seen.setdefault(s, (x, p.x0)))
    assert all(float(x0.abs().max()) == 1 for _, x0 in seen.values())
    steps, x = list(seen), [x for x, _ in seen.values()]
    for step, before, after in zip(steps, x, x[1:], strict=False):
        noise = 6 * step.forward_variance**0.5  # a normal number here is bounded by 5.77
        assert float((after - step.c_xt * before).abs().max()) < step.c_x0 + noise


def with_variance(variance: str) -> Sampling:
    return sampling().model_copy(update={"sampler": {"name": "ancestral", "variance": variance}})


class Learned(Exact):
    """The exact denoiser with a variance of its own."""

    def __call__(self, x: torch.Tensor, t: torch.Tensor | float, labels: torch.Tensor | None = None) -> Prediction:
        exact = super().__call__(x, t, labels)
        return Prediction(x, exact.a, exact.s, exact.output, "x0", torch.full_like(x, self.fraction))

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction


@pytest.mark.parametrize(("fraction", "fixed"), [(0.0, "fixed-small"), (1.0, "fixed-large")])
def test_a_learned_variance_at_its_ends_is_a_fixed_one(fraction: float, fixed: str) -> None:
    """In micro-batches and with clipping, both of which have to hand the learned variance on."""
    clipped = with_variance("learned").model_copy(update={"clip_x0": True})
    free = with_variance(fixed).model_copy(update={"clip_x0": True})
    index = torch.arange(20)
    learned, expected = (draw(Learned(fraction), s, 10, index, (1, 2, 2), 7) for s in (clipped, free))
    assert torch.allclose(learned, expected, atol=1e-5)
    assert torch.equal(learned, draw(Learned(fraction), clipped, 10, index, (1, 2, 2), 20))


def test_learned_or_large_goes_with_the_network() -> None:
    index = torch.arange(20)
    either = with_variance("learned-or-large")
    for denoiser, same in ((Exact(), "fixed-large"), (Learned(0.3), "learned")):
        samples = [draw(denoiser, s, 10, index, (1, 2, 2), 20) for s in (either, with_variance(same))]
        assert torch.equal(*samples)


def test_a_network_without_a_variance_is_refused_when_one_is_asked_for() -> None:
    with pytest.raises(BadConfig, match=r"^this network has learned no variance, .* or learned-or-large\.$"):
        draw(Exact(), with_variance("learned"), 10, torch.arange(2), (1, 2, 2), 2)
