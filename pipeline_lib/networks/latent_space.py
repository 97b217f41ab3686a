"""A trained autoencoder as a self-describing safetensors file, and back to a map between images and latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.config.base import load_part, part
from pipeline_lib.data.prepared import to_float, to_uint8
from pipeline_lib.networks import trained
from pipeline_lib.records.store import Manifest

WEIGHTS = "autoencoder.safetensors"


@dataclass(frozen=True)
class LatentSpace:
    """Between images uint8 (B,C,H,W) and latents float32 (B,L,H/f,W/f) of unit standard deviation, on `device`.

    `std` is the standard deviation of the training images' latents before they are scaled.
    """

    network: nn.Module
    image_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    std: float
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 (B,C,H,W) -> latents, scaled."""
        return self.network.encode(to_float(images.to(self.device))) / self.std  # type: ignore[operator]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> uint8 (B,C,H,W)."""
        return to_uint8(self.network.decode(latents.to(self.device) * self.std))  # type: ignore[operator]


def build(config: Mapping[str, Any], image_channels: int, seed: int) -> nn.Module:
    """The autoencoder of a configuration, with weights drawn from `seed`; torch's generator is left alone.

    Raises BadConfig where it is a user's own file that was edited since.
    """
    module, options = load_part("networks/autoencoders", part("networks/autoencoders", config, "autoencoder"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(options, image_channels)


def parameters(config: Mapping[str, Any], image_channels: int) -> int:
    """Number of weights of an autoencoder, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(config, image_channels, 0).parameters())


def save(path: Path, network: nn.Module, config: Mapping[str, Any], shape: tuple[int, int, int], std: float) -> None:
    """Write the weights with all that is needed to use them; `shape` is that of the images."""
    about = {"autoencoder": dict(config), "shape": list(shape), "std": std}
    trained.write(path, network.state_dict(), about)


def load(manifest: Manifest, device: torch.device | str = "cpu") -> LatentSpace:
    """The latent space of an autoencoder's manifest; raises BadData where its weights cannot be read."""
    path = manifest.file(WEIGHTS)
    about = trained.about(path)
    _, options = load_part("networks/autoencoders", about["autoencoder"])
    shape = tuple(about["shape"])
    network = build(about["autoencoder"], shape[0], 0)
    network.load_state_dict(trained.tensors(path))
    network = network.to(device).eval().requires_grad_(False)
    return LatentSpace(network, shape, options.latent_shape(shape), about["std"], device)
