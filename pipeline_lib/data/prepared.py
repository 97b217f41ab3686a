"""A prepared dataset as its consumers see it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.records.store import Manifest


@dataclass(frozen=True)
class Prepared:
    """Images uint8 (N,C,H,W), memory-mapped and read-only; labels int64 (N,) where the dataset has them.

    Of a manifest of the latents stage the images are latents, float32 (N,L,H/f,W/f).

    `split` is 'train' or 'holdout'; opening a split compares its hash with the manifest (BadData).
    """

    manifest: Manifest
    split: str = "train"

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 (N,C,H,W); latents are float32."""
        return np.load(self.manifest.file(f"{self.split}-images.npy"), mmap_mode="r")

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 (N,), or None."""
        name = f"{self.split}-labels.npy"
        return np.load(self.manifest.file(name)) if name in self.manifest.files else None

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty where there are no labels."""
        return self.manifest.facts["classes"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def holdout(self) -> "Prepared":
        """The images that no training sees."""
        return Prepared(self.manifest, "holdout")

    def floats(self, index: np.ndarray | slice, device: torch.device | str = "cpu") -> Tensor:
        """Images at `index` as float32 in [-1, 1], or latents; a copy."""
        return to_float(torch.from_numpy(np.array(self.images[index])).to(device))


def to_float(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]; latents, which are floating point, stay as they are."""
    return images.to(torch.float32) / 127.5 - 1 if images.dtype == torch.uint8 else images.to(torch.float32)


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [-1, 1], clipped there -> uint8, rounded to the nearest level."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
