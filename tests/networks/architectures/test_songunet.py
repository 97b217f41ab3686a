"""Published parameter counts, filters, weights at the start, labels and augmentation, and what is refused."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures._songunet import Resample, Shrink
from pipeline_lib.networks.architectures.songunet import Options, build

NCSN = {"embedding": "fourier", "encoder": "residual", "resample_filter": [1, 3, 3, 1]}
KINDS = {"ddpm++": {}, "ncsn++": NCSN}
SMALL = {"channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "attention_resolutions": [4], "dropout": 0.0}


def small(kind: str = "ddpm++", classes: int = 0, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(Options(**SMALL, **KINDS[kind], **more), 8, 1, 1, classes)


@pytest.mark.parametrize(
    ("kind", "conditional", "augment", "count", "published"),
    [
        ("ddpm++", False, True, 55_733_891, 55.7),
        ("ddpm++", True, True, 55_735_299, 55.7),
        ("ddpm++", False, False, 55_732_739, 55.7),
        ("ddpm++", True, False, 55_734_147, 55.7),
        ("ncsn++", False, True, 56_397_827, 56.4),
        ("ncsn++", True, True, 56_400_643, 56.4),
        ("ncsn++", False, False, 56_395_523, 56.4),
        ("ncsn++", True, False, 56_398_339, 56.4),
    ],
)
def test_cifar_networks_have_the_published_size(
    kind: str, conditional: bool, augment: bool, count: int, published: float
) -> None:
    """55.7M and 56.4M with labels and augmentation or without: 9 numbers are 1,152 weights, 10 labels 1,408."""
    with torch.device("meta"):
        network = build(Options(**KINDS[kind], conditional=conditional, augment=augment), 32, 3, 3, 10)
    found = sum(p.numel() for p in network.parameters())
    assert found == count
    assert round(found / 1e6, 1) == published


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_has_the_shape_of_the_image_and_starts_near_zero(kind: str) -> None:
    x = torch.randn(3, 1, 8, 8)
    out = small(kind)(x, torch.tensor([-1.0, 0.0, 1.0])).detach()
    assert out.shape == x.shape
    assert 0 < float(out.abs().max()) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_weights_start_as_published(kind: str) -> None:
    """Glorot's uniform law; 1e-5 of it where a branch ends, sqrt(0.2) of it in queries, keys and values."""
    torch.manual_seed(0)
    network = build(Options(**KINDS[kind], res_blocks=1, channels=32), 32, 3, 3, 0)

    def gain(module: torch.nn.Module) -> float:
        fans = module.weight[0].numel() + module.weight[:, 0].numel()
        return float(module.weight.detach().abs().max()) / sqrt(6 / fans)

    block = network.middle[0]
    for module in (block.conv1, block.embed, network.first, network.embedding.first):
        assert gain(module) == pytest.approx(1, abs=0.01)
    for module in (block.conv2, block.attention.out, network.last):
        assert gain(module) == pytest.approx(1e-5, rel=0.01)
    assert gain(block.attention.qkv) == pytest.approx(sqrt(0.2), abs=0.01)
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias") and "norm" not in name)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_resampling_keeps_a_plane_and_its_place(taps: list[int]) -> None:
    """Away from the edges: a linear ramp halved is sampled between pixels, and doubled half way from them."""
    ramp = torch.arange(16.0).expand(1, 2, 16, 16)
    down = Resample("down", taps)(ramp)
    assert down.shape == (1, 2, 8, 8)
    assert torch.allclose(down[..., 3, 2:6], 2 * torch.arange(2.0, 6.0) + 0.5)
    up = Resample("up", taps)(ramp)
    assert up.shape == (1, 2, 32, 32)
    expected = torch.arange(32.0) / 2 - 0.25 if len(taps) == 4 else (torch.arange(32.0) / 2).floor()
    assert torch.allclose(up[..., 9, 4:28], expected[4:28].expand(1, 2, 24))


def test_the_residual_encoder_sees_the_edges_once() -> None:
    """The image is convolved with zeros around it as far as convolution and filter reach, then filtered without."""
    shrink = Shrink(1, 1, [1, 3, 3, 1])
    with torch.no_grad():
        shrink.conv.weight.zero_()
        shrink.conv.weight[0, 0, 1, 1] = 1.0
        x = torch.randn(1, 1, 8, 8)
        assert torch.allclose(shrink(x), Resample("down", [1, 3, 3, 1])(x), atol=1e-6)


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that let every input reach the output."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def output(network: torch.nn.Module, *more: Tensor | None) -> Tensor:
    with torch.no_grad():
        return network(torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8), torch.tensor([0.3]), *more)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_change_the_output_like_one_hot_vectors(kind: str) -> None:
    network = shaken(small(kind, classes=3, conditional=True))
    outputs = [output(network, torch.tensor([label])) for label in range(3)]
    assert not torch.allclose(outputs[0], outputs[1])
    layer = network.embedding.label
    with torch.no_grad():
        layer.weight[:, 1] = layer.weight[:, 0]
    assert torch.allclose(output(network, torch.tensor([1])), outputs[0])
    assert torch.allclose(output(network, torch.tensor([2])), outputs[2])


def test_zeros_are_no_augmentation() -> None:
    network = shaken(small(augment=True))
    plain = output(network, None)
    assert torch.equal(output(network, None, torch.zeros(1, 9)), plain)
    assert not torch.allclose(output(network, None, torch.eye(9)[2:3]), plain)
    assert network.embedding.augment.bias is None


def test_the_rates_of_ncsn_are_kept_with_the_weights() -> None:
    state = small("ncsn++").state_dict()
    assert state["embedding.rates"].shape == (8,)
    assert "taps" not in " ".join(state)


def test_no_level_is_left_out() -> None:
    """Every parameter has a gradient."""
    for kind in KINDS:
        network = shaken(small(kind, classes=3, conditional=True, augment=True))
        out = network(torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 2]), torch.randn(2, 9))
        out.square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("change", "resolution", "sentence"),
    [
        ({}, 9, "halves the image 1 times, which a resolution of 9"),
        ({"attention_resolutions": [16]}, 8, "never occur"),
        ({"conditional": True}, 8, "no labels"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], resolution: int, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        build(Options(**{**SMALL, **change}), resolution, 1, 1, 0)


def test_an_odd_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="even number of taps"):
        Options(resample_filter=[1, 2, 1])
