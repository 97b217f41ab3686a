"""Training times by loss: the released rule replayed, weights that keep the mean, batches in one go."""

from collections import deque

import numpy as np
import pytest
import torch

from pipeline_lib.objectives._times import HISTORY, UNIFORM, LossSecondMoment

T = 6


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).clamp(1e-6, 1 - 1e-6)


def filled(sizes: list[float]) -> LossSecondMoment:
    """After ten losses of the given size at every t."""
    times = LossSecondMoment()
    times.draw(len(sizes), uniform(1))
    for _ in range(HISTORY):
        times.record(torch.arange(1.0, len(sizes) + 1), torch.tensor(sizes))
    return times


class Replayed:
    """The released rule one loss at a time, in other words: queues that forget their oldest."""

    def __init__(self) -> None:
        self.queues = [deque(maxlen=10) for _ in range(T)]

    def record(self, t: torch.Tensor, loss: torch.Tensor) -> None:
        for at, value in zip(t.long().tolist(), loss.tolist(), strict=True):
            self.queues[at - 1].append(value)

    def probabilities(self) -> np.ndarray:
        if any(len(q) < 10 for q in self.queues):
            return np.full(T, 1 / T)
        size = np.array([np.mean(np.square(q)) ** 0.5 for q in self.queues])
        return 0.999 * size / size.sum() + 0.001 / T


def test_batches_are_remembered_as_losses_one_by_one() -> None:
    """With far more than ten losses of one t in a batch, and some t never seen at first."""
    ours, theirs = LossSecondMoment(), Replayed()
    ours.draw(T, uniform(1))
    random = torch.Generator().manual_seed(0)
    warm = []
    for step in range(40):
        t = torch.randint(1, T + 1 if step > 8 else T, (17,), generator=random).float()
        t[: 13 if step % 5 == 0 else 0] = 2.0
        loss = torch.rand(17, generator=random) * t**2
        ours.record(t, loss)
        theirs.record(t, loss)
        expected = theirs.probabilities()
        warm.append(bool(expected.std() > 0))
        assert np.allclose(ours.probabilities(T, uniform(1)).numpy(), expected, rtol=1e-6)
    assert {True, False} == set(warm)


def test_times_are_uniform_until_every_history_is_full() -> None:
    times = filled([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    u = uniform(5000)
    assert not torch.equal(times.draw(T, u)[0], (u * T).ceil())
    times.seen[4] -= 1
    t, weight = times.draw(T, u)
    assert torch.equal(t, (u * T).ceil())  # those of the control, from the same numbers
    assert torch.allclose(weight, torch.ones(5000))


def test_times_follow_the_losses() -> None:
    t, _ = filled([0.0, 1.0, 1.0, 2.0, 4.0, 0.0]).draw(T, uniform(80_000))
    share = torch.bincount(t.long(), minlength=T + 1)[1:] / 80_000
    floor = UNIFORM / T
    assert share.tolist() == pytest.approx([floor, 1 / 8, 1 / 8, 1 / 4, 1 / 2, floor], abs=0.006)
    assert {1, 6} <= set(t.long().unique().tolist())  # what has no loss is still drawn now and then


def test_the_weighted_mean_is_the_mean_over_uniform_times() -> None:
    """Exactly as a sum over t, and for drawn t within their noise."""
    times, value = filled([0.3, 5.0, 1.0, 0.1, 2.0, 0.7]), torch.tensor([4.0, 9.0, 1.0, -2.0, 3.0, 0.5])
    p = times.probabilities(T, uniform(1))
    assert float(p.sum()) == pytest.approx(1)
    every, weight = times.draw(T, (p.cumsum(0) - p / 2).float())
    assert every.tolist() == [1, 2, 3, 4, 5, 6]
    assert float((p * weight * value).sum()) == pytest.approx(float(value.mean()), rel=1e-5)
    t, weight = times.draw(T, uniform(40_000))
    drawn = weight * value[t.long() - 1]
    assert float(drawn.mean()) == pytest.approx(float(value.mean()), abs=4 * float(drawn.std()) / 200)


def test_the_variance_is_least_where_losses_are_what_was_seen() -> None:
    value = torch.tensor([0.3, 5.0, 1.0, 0.1, 2.0, 0.7])
    t, weight = filled(value.tolist()).draw(T, uniform(10_000))
    assert float((weight * value[t.long() - 1]).std()) < 0.1 * float(value.std())


def test_state_goes_into_a_checkpoint_and_back() -> None:
    times, other = filled([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), LossSecondMoment()
    assert other.state() == {}
    other.load({})
    other.load({name: tensor.clone() for name, tensor in times.state().items()})
    assert torch.equal(times.draw(T, uniform(99))[0], other.draw(T, uniform(99))[0])
