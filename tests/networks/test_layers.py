"""What lies between convolutions: the plain operations against their formula, and our kernels against these."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.device import has_kernels, plain
from pipeline_lib.networks import layers
from pipeline_lib.networks.layers import Dropout, Masks, activate, convolve, residual

on_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and has_kernels()), reason="needs a GPU with Triton")
SHAPES = [(3, 32, 8, 8), (2, 48, 4, 4), (2, 384, 32, 32), (5, 128, 33, 33), (3, 24, 5, 5)]
GROUPED = [(shape, shape[1] // 4) for shape in SHAPES]
GROUPED += [  # programs with lanes that hold no channel, one group wider than several together may be, a single pixel
    ((2, 384, 8, 8), 32), ((1, 24, 33, 33), 4), ((1, 33, 3, 5), 3), ((1, 128, 9, 9), 1), ((2, 20, 1, 1), 5)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    backend = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, backend.fp32_precision = backend.fp32_precision, "ieee"
    yield
    backend.fp32_precision = before


def normalised(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group normalisation from its definition."""
    groups = x.unflatten(1, (norm.num_groups, -1))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = groups.var((2, 3, 4), keepdim=True, correction=0)
    unit = ((groups - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def random_norm(channels: int, groups: int | None = None) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups or channels // 4, channels, 1e-5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def test_activate_is_what_it_says() -> None:
    torch.manual_seed(0)
    x, add, scale, shift = torch.randn(3, 16, 4, 4), *torch.randn(3, 3, 16)
    norm, conv = random_norm(16), nn.Conv2d(16, 16, 3, padding=1)
    y, h = activate(norm, x, add, torch.cat((scale, shift), 1), conv=conv)
    assert torch.equal(h, conv(x))
    z = normalised(conv(x) + add[:, :, None, None], norm) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    assert torch.allclose(y, z * torch.sigmoid(z), atol=1e-5)
    assert torch.allclose(activate(norm, x, silu=False)[0], normalised(x, norm), atol=1e-5)
    y, joined = activate(norm, (x[:, :6], x[:, 6:]), silu=False)
    assert torch.equal(joined, x)
    assert torch.allclose(y, normalised(x, norm), atol=1e-5)


def test_residual_is_what_it_says() -> None:
    torch.manual_seed(0)
    x, h = torch.randn(2, 2, 6, 4, 4)
    conv, shortcut = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)
    assert torch.allclose(residual(x, shortcut, h, conv, 0.5), 0.5 * (shortcut(x) + conv(h)))
    narrow = nn.Conv2d(6, 6, 1)
    assert torch.allclose(residual(x, nn.Identity(), h, narrow), x + narrow(h))


def test_doubling_repeats_pixels() -> None:
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert layers.doubled(x)[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def both(compute: object, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients, by our kernels and by plain operations, for a random weight of each output."""
    found = []
    for way in (None, plain):
        own = [one.detach().clone(memory_format=torch.preserve_format).requires_grad_() for one in inputs]
        if way is None:
            outputs = compute(*own)  # type: ignore[operator]
        else:
            with way():
                outputs = compute(*own)  # type: ignore[operator]
        torch.manual_seed(5)
        loss = sum((one * torch.randn(one.shape, device=one.device)).sum() for one in outputs)
        found.append([*outputs, *torch.autograd.grad(loss, own)])
    return found[0], found[1]


def close(ours: list[Tensor], theirs: list[Tensor], within: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert float((mine - other).double().norm() / other.double().norm()) < within


@on_gpu
@pytest.mark.parametrize(("shape", "groups"), GROUPED)
@pytest.mark.parametrize("kind", ["norm", "added", "scaled", "silu", "two"])
def test_kernel_of_activate(shape: tuple[int, ...], groups: int, kind: str) -> None:
    """Outputs and all gradients in float32; x is used besides, and is a slice of wider memory."""
    torch.manual_seed(0)
    n, c = shape[:2]
    norm = random_norm(c, groups).cuda()
    wide = torch.randn(n, 2 * c, *shape[2:], device="cuda").to(memory_format=torch.channels_last)
    vectors = torch.randn(n, c, device="cuda"), torch.randn(n, 2 * c, device="cuda")
    inputs = [wide[:, :c] * 2 + 1, *vectors, norm.weight.detach(), norm.bias.detach()]

    def compute(x: Tensor, add: Tensor, scale_shift: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        own = copy.copy(norm)
        own._parameters = {"weight": weight, "bias": bias}  # type: ignore[assignment]
        more = {"added": {"add": add}, "scaled": {"scale_shift": scale_shift}}.get(kind, {})
        first = c // 3 + 1  # where the second of two begins: inside a group
        y, x = activate(own, (x[:, :first], x[:, first:]) if kind == "two" else x, silu=kind != "norm", **more)  # type: ignore[arg-type]
        unused = sum((one * 0).sum() for one in (add, scale_shift))
        return [y, x + unused]

    ours, theirs = both(compute, inputs)
    keep = [i for i, one in enumerate(theirs) if float(one.norm())]
    within = 2e-6 if (shape, groups) in GROUPED[: len(SHAPES)] else 5e-6
    close([ours[i] for i in keep], [theirs[i] for i in keep], within)
    assert len(keep) >= 5


@on_gpu
@pytest.mark.parametrize("kind", ["added", "scaled", "two"])
def test_kernel_of_activate_in_bfloat16(kind: str) -> None:
    """Against float32 from the same numbers; gradients have the digits of what they belong to."""
    torch.manual_seed(0)
    norm = random_norm(48, 8).cuda()
    x = torch.randn(2, 48, 5, 7, device="cuda").to(torch.bfloat16, memory_format=torch.channels_last)
    condition = torch.randn(2, 96 if kind == "scaled" else 48, device="cuda").bfloat16()

    def compute(x: Tensor, condition: Tensor) -> list[Tensor]:
        a, c = (x, condition) if layers.fused(x) else (x.float(), condition.float())
        more = {"added": {"add": c}, "scaled": {"scale_shift": c}}.get(kind, {})
        y, h = activate(norm, (a[:, :17], a[:, 17:]) if kind == "two" else a, **more)  # type: ignore[arg-type]
        assert y.dtype == h.dtype == a.dtype
        return [y, h + 0 * condition.sum()]

    ours, theirs = both(compute, [x, condition])
    keep = [i for i, one in enumerate(theirs) if float(one.norm())]
    close([ours[i] for i in keep], [theirs[i] for i in keep], 1e-2)
    assert [one.dtype for one in ours] == [torch.bfloat16] * 4


@on_gpu
def test_kernel_of_activate_whose_first_output_is_not_used() -> None:
    a, b = (torch.randn(2, c, 3, 5, device="cuda", requires_grad=True) for c in (7, 17))
    norm = random_norm(24).cuda()
    _, joined = activate(norm, (a, b))
    weight = torch.randn_like(joined)
    of_a, of_b, of_norm = torch.autograd.grad((joined * weight).sum(), (a, b, norm.weight), allow_unused=True)
    assert torch.equal(torch.cat((of_a, of_b), 1), weight)
    assert of_norm is None


@on_gpu
@pytest.mark.parametrize("kind", ["alone", "added", "scaled"])
def test_kernel_of_activate_behind_a_convolution(kind: str) -> None:
    """The convolution's bias is added in the kernel, and has its gradient from there."""
    torch.manual_seed(0)
    norm, conv, dropout = random_norm(40).cuda(), nn.Conv2d(24, 40, 3, padding=1).cuda(), Dropout(0.0)
    x = torch.randn(3, 24, 9, 9, device="cuda").to(memory_format=torch.channels_last)
    condition = torch.randn(3, 80 if kind == "scaled" else 40, device="cuda")

    def compute(x: Tensor, condition: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        own = copy.copy(conv)
        own._parameters = {"weight": weight, "bias": bias}  # type: ignore[assignment]
        more = {"added": {"add": condition}, "scaled": {"scale_shift": condition}}.get(kind, {})
        y, _ = activate(norm, x, dropout=dropout, conv=own, **more)  # type: ignore[arg-type]
        return [y + 0 * condition.sum()]

    ours, theirs = both(compute, [x, condition, conv.weight, conv.bias])
    keep = [i for i, one in enumerate(theirs) if float(one.norm())]
    assert len(keep) >= 4
    close([ours[i] for i in keep], [theirs[i] for i in keep], 5e-6)


@on_gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_of_doubling(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wide = torch.randn(shape[0], 2 * shape[1], *shape[2:], device="cuda").to(memory_format=torch.channels_last)
    ours, theirs = both(lambda x: [layers.doubled(x)], [wide[:, shape[1] :]])
    assert torch.equal(ours[0], theirs[0])
    close(ours, theirs, 1e-6)


@on_gpu
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_kernel_of_residual(gain: float) -> None:
    torch.manual_seed(0)
    conv, shortcut = nn.Conv2d(24, 40, 3, padding=1).cuda(), nn.Conv2d(48, 40, 1).cuda()
    x, h = (torch.randn(3, c, 9, 9, device="cuda").to(memory_format=torch.channels_last) for c in (48, 24))
    weights = [conv.weight, conv.bias, shortcut.weight, shortcut.bias]

    def compute(x: Tensor, h: Tensor, *given: Tensor) -> list[Tensor]:
        first, second = copy.copy(conv), copy.copy(shortcut)
        first._parameters = {"weight": given[0], "bias": given[1]}  # type: ignore[assignment]
        second._parameters = {"weight": given[2], "bias": given[3]}  # type: ignore[assignment]
        return [residual(x, second, h, first, gain), convolve(first, h)]

    close(*both(compute, [x, h, *weights]), within=5e-6)


@on_gpu
@pytest.mark.parametrize("rate", [0.3, 0.6])  # the share of 32-bit numbers that are dropped is itself one, or is not
def test_dropout_of_the_kernel(rate: float) -> None:
    """The share that is kept, masks that are those of image, step and call, and gradients where the value was kept."""
    torch.manual_seed(0)
    network = nn.Sequential(Dropout(rate), Dropout(rate)).cuda().train()
    masks, norm = Masks(network, torch.device("cuda")), random_norm(64).cuda()
    x = torch.randn(64, 64, 16, 16, device="cuda").to(memory_format=torch.channels_last)

    def dropped(step: int, first: int, layer: int = 0, calls: int = 1, images: Tensor = x) -> Tensor:
        masks.begin(torch.tensor([step], device="cuda"), torch.tensor([first], device="cuda"))
        for _ in range(calls):
            y, _ = activate(norm, images, silu=False, dropout=network[layer])
        return y

    kept = dropped(1, 0) != 0
    assert abs(float(kept.float().mean()) - (1 - rate)) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5
    assert torch.equal(dropped(1, 0), dropped(1, 0))
    assert torch.equal(dropped(1, 24, images=x[24:]) != 0, kept[24:])  # rows of a batch have the masks of the whole
    for other in (dropped(2, 0), dropped(1, 0, layer=1), dropped(1, 0, calls=2), dropped(1, 1)):
        agree = float(((other != 0) == kept).float().mean())
        assert abs(agree - rate**2 - (1 - rate) ** 2) < 0.005  # independent
    whole, _ = activate(norm, x, silu=False)
    assert torch.allclose(dropped(1, 0)[kept], whole[kept] / (1 - rate))
    x.requires_grad_()
    (ours,) = torch.autograd.grad(dropped(1, 0).square().sum(), x)
    with plain():
        (theirs,) = torch.autograd.grad(
            (F.group_norm(x, 16, norm.weight, norm.bias, 1e-5) * kept / (1 - rate)).square().sum(), x
        )
    close([ours], [theirs], 5e-6)
