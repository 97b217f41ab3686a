"""The networks that the classifier stage trains: uint8 images in [-1,1] -> features -> logits.

Batch normalisation in both, since in evaluation it is a fixed affine map: normalising each image by itself would hide
errors of contrast from the features.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FeatureNetwork(nn.Module):
    """A body, a linear layer to the features and one to the logits; `about` is what it is built anew from."""

    about: dict[str, Any]
    body: nn.Module
    penultimate: nn.Linear
    last: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """(B, D): the penultimate layer before its nonlinearity, where features are closest to Gaussian."""
        return self.penultimate(self.body(x))

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, classes)."""
        return self.last(F.silu(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


class SmallCNN(FeatureNetwork):
    """Strided convolutions that bring the longer side, from 8 pixels up, to at most 4."""

    def __init__(self, shape: tuple[int, int, int], channels: int, features: int, classes: int) -> None:
        super().__init__()
        self.about = _about("small", shape, channels, features, classes)
        inside, height, width = shape
        layers, out = [*_convolution(inside, channels, 1), nn.SiLU()], channels
        while max(height, width) > 4:
            inside, out = out, min(2 * out, 4 * channels)
            layers += [*_convolution(inside, out, 2), nn.SiLU()]
            height, width = -(-height // 2), -(-width // 2)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.penultimate = nn.Linear(out * height * width, features)
        self.last = nn.Linear(features, classes)


class SmallResNet(FeatureNetwork):
    """A residual network (He et al., 2016): one block a resolution down to 8 pixels or fewer, then their mean."""

    def __init__(self, shape: tuple[int, int, int], channels: int, features: int, classes: int) -> None:
        super().__init__()
        self.about = _about("resnet", shape, channels, features, classes)
        side, out = max(shape[1:]), channels
        layers: list[nn.Module] = [*_convolution(shape[0], channels, 1), nn.SiLU(), Block(channels, channels, 1)]
        while side > 8:
            inside, out, side = out, min(2 * out, 8 * channels), -(-side // 2)
            layers.append(Block(inside, out, 2))
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.penultimate = nn.Linear(out, features)
        self.last = nn.Linear(features, classes)


class Block(nn.Module):
    """Two convolutions and a short cut."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(*_convolution(inside, out, stride), nn.SiLU(), *_convolution(out, out, 1))
        same = inside == out and stride == 1
        self.short = nn.Identity() if same else nn.Sequential(*_convolution(inside, out, stride, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.path(x) + self.short(x))


NETWORKS: dict[str, type[SmallCNN] | type[SmallResNet]] = {"small": SmallCNN, "resnet": SmallResNet}


def build(about: dict[str, Any]) -> FeatureNetwork:
    """The network that `about` describes; raises KeyError or TypeError where it describes none."""
    return NETWORKS[about["network"]](**{k: v for k, v in about.items() if k != "network"})


def _about(network: str, shape: tuple[int, int, int], channels: int, features: int, classes: int) -> dict[str, Any]:
    return {
        "network": network,
        "shape": list(shape),
        "channels": channels,
        "features": features,
        "classes": classes,
    }


def _convolution(inside: int, out: int, stride: int, kernel: int = 3) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, out, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(out)
