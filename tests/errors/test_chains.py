"""The measured chains: which x_t is shown at which place, and scratch that never changes a number."""

import logging
import shutil

import pytest
import torch

from pipeline_lib.errors.chains import Chains, measured
from pipeline_lib.samplers._stage import draw

from .conftest import SHAPE, GaussianPosterior


@pytest.fixture
def chains(denoiser, sampling):
    return Chains(denoiser, "f" * 64, sampling(12), 12, 20, SHAPE)


def visited(chains: Chains, times) -> dict[int, torch.Tensor]:
    seen: dict[int, torch.Tensor] = {}
    assert chains.visit(times, seen.__setitem__) == 12
    return seen


def test_both_ends_are_always_measured():
    assert measured(1000, 5) == [0, 250, 500, 750, 1000]
    assert measured(10, 1) == [0, 10]
    assert measured(3, 20) == measured(3, "every") == [0, 1, 2, 3]


@pytest.mark.parametrize("times", ["every", 5])
def test_each_place_is_shown_what_the_network_was_given_there(chains, times):
    seen, inputs = visited(chains, times), chains.denoiser.inputs
    assert list(seen) == measured(12, times)
    for place, x in seen.items():
        if place < 12:
            t, given = inputs[place]
            assert t == chains.grid.times[place]
            assert torch.equal(x, given)
    x0 = draw(chains.denoiser, chains.sampling, 12, torch.arange(20), SHAPE, 500)
    assert torch.equal(seen[12], x0)


def test_a_second_visit_calls_no_network(chains):
    first = visited(chains, 4)
    assert len(chains.denoiser.inputs) == 12
    second = visited(chains, 4)
    assert len(chains.denoiser.inputs) == 12
    assert all(torch.equal(first[p], second[p]) for p in first)


@pytest.mark.parametrize("lost", ["", "done.json", "00004.npy"])
def test_lost_scratch_is_simulated_again_to_the_same_numbers(chains, lost, caplog):
    first = visited(chains, 4)
    place = chains.scratch(list(first)) / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with caplog.at_level(logging.INFO):
        second = visited(chains, 4)
    assert "simulating" in caplog.text
    assert all(torch.equal(first[p], second[p]) for p in first)


def test_streaming_equals_stored_and_stores_nothing(chains, tmp_path):
    streamed = visited(chains, "every")
    assert not (tmp_path / "work").exists()
    stored = visited(chains, 5)
    assert all(torch.equal(stored[p], streamed[p]) for p in stored)


def test_chains_do_not_depend_on_the_batch(chains, denoiser, sampling):
    batched = Chains(denoiser, "e" * 64, sampling(12), 12, 20, SHAPE, batch=7)
    one, other = visited(chains, 3), visited(batched, 3)
    assert all(torch.allclose(one[p], other[p], atol=1e-6) for p in one)


def test_scratch_is_keyed_by_what_decides_the_chains(chains, denoiser, sampling):
    places, base = [0, 12], chains.scratch([0, 12])
    others = [
        Chains(denoiser, "e" * 64, sampling(12), 12, 20, SHAPE).scratch(places),
        Chains(denoiser, "f" * 64, sampling(12, seed=1), 12, 20, SHAPE).scratch(places),
        Chains(denoiser, "f" * 64, sampling(12), 11, 20, SHAPE).scratch(places),
        Chains(denoiser, "f" * 64, sampling(12), 12, 21, SHAPE).scratch(places),
        chains.scratch([0, 6, 12]),
    ]
    assert len({base, *others}) == 6
    assert Chains(denoiser, "f" * 64, sampling(99), 12, 20, SHAPE, batch=3).scratch(places) == base


def test_a_failure_leaves_no_half_scratch(chains, tmp_path, monkeypatch):
    def fail(self: GaussianPosterior, *_: object) -> None:
        raise RuntimeError("the job was killed")

    monkeypatch.setattr(GaussianPosterior, "__call__", fail)
    with pytest.raises(RuntimeError):
        chains.visit(4, lambda place, x: None)
    assert list((tmp_path / "work/chains").iterdir()) == []
