"""The random numbers: published vectors, independence of batch and device, distribution."""

import pytest
import torch

from pipeline_lib.diffusion.noise import Noise, philox
from pipeline_lib.diffusion.streams import Stream


# Known-answer vectors of Random123 1.14 (Salmon et al.): philox4x32-10.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_published_vectors(counter: str, key: str, expected: str) -> None:
    words = [torch.tensor(int(w, 16)) for w in counter.split()]
    k0, k1 = (int(w, 16) for w in key.split())
    assert [int(w) for w in philox(words, (k0, k1))] == [int(w, 16) for w in expected.split()]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    noise = Noise(7)
    together = noise.normal(Stream.REVERSE, torch.arange(10), 3, (3, 5, 5))
    alone = noise.normal(Stream.REVERSE, torch.tensor([6]), 3, (3, 5, 5))
    assert torch.equal(together[6:7], alone)


@pytest.mark.parametrize("change", ["seed", "stream", "step", "sub", "index"])
def test_every_part_of_the_key_matters(change: str) -> None:
    def draw(**key: int) -> torch.Tensor:
        full = {"seed": 1, "stream": Stream.NOISE, "step": 5, "sub": 0, "index": 2} | key
        index = torch.tensor([full["index"]])
        return Noise(full["seed"]).words(Stream(full["stream"]), index, full["step"], 8, full["sub"])

    other = {"seed": 2**33 + 1, "stream": Stream.FLIP, "step": 6, "sub": 1, "index": 3}[change]
    assert not (draw() == draw(**{change: other})).any()


def test_normals_are_standard_normal() -> None:
    x = Noise(0).normal(Stream.NOISE, torch.arange(2000), 0, (100,)).double()
    moments = torch.stack([x.mean(), x.square().mean(), x.pow(3).mean(), x.pow(4).mean()])
    expected = torch.tensor([0.0, 1.0, 0.0, 3.0], dtype=torch.float64)
    spread = torch.tensor([1.0, 2.0, 15.0, 96.0], dtype=torch.float64).sqrt() / x.numel() ** 0.5
    assert ((moments - expected).abs() < 4 * spread).all()
    assert float((x[:, 0::2] * x[:, 1::2]).mean().abs()) < 4 / 1e5**0.5  # the two of a Box-Muller pair


def test_uniform_never_touches_its_ends() -> None:
    from pipeline_lib.diffusion.noise import _unit

    ends = _unit(torch.tensor([0, 0xFFFFFFFF]))
    assert float(ends[0]) > 0
    assert float(ends[1]) < 1


def test_permutation_is_one_and_changes_with_the_epoch() -> None:
    first, second = (Noise(3).permutation(Stream.ORDER, 1000, epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == list(range(1000))
    assert (first == second).float().mean() < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cpu_and_gpu_give_the_same_integers() -> None:
    cpu, gpu = (Noise(9, d).words(Stream.NOISE, torch.arange(64), 2, 1000) for d in ("cpu", "cuda"))
    assert torch.equal(cpu, gpu.cpu())
