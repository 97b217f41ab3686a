"""EDM: weighted denoising of Karras et al. (2022), Eq. 2, 8 and Table 1, on the preconditioned prediction of x_0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoiser
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.objectives import Batch


class Options(Model):
    """Options of EDM."""

    norm: Literal["mean", "sum"] = Field("mean", description="squared norm averaged over pixels, or summed (Eq. 2)")
    augment: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of each geometric change of an image, of which the network is told; "
        "0: none, and no flips",
    )


IMAGES = 512  # of a batch
PRESETS: dict[str, dict[str, Any]] = {
    # Karras et al. (2022), App. F, and the released training command; CIFAR-10
    "paper": {
        "diffusion": {"path": "edm", "prediction": "edm"},
        "network": {"dropout": 0.13},
        "objective": {"norm": "sum", "augment": 0.12},
        "training": {
            "steps": 200_000_000 // IMAGES,
            "batch_size": IMAGES,
            "lr": 1e-3,
            "lr_decay": "none",
            "adam_betas": [0.9, 0.999],
            "warmup_steps": 10_000_000 // IMAGES,
            "grad_clip": None,
            "ema_halflife_images": 500_000,
            "ema_every": 1,
            "ema_warmup": True,
            "flip": False,  # the augmentation flips, and says so
        },
    },
}


def check(options: Options, run: Run, where: str) -> None:
    """Raises BadConfig for another path, and where the network cannot be told of an augmentation."""
    if run.diffusion.path != "edm":
        raise BadConfig(f"{where}: objective edm needs diffusion.path edm (it is {run.diffusion.path}).")
    check_augmentation(options.augment, run, where)


def check_augmentation(augment: float, run: Run, where: str) -> None:
    """Raises BadConfig where images are augmented, and the network is not told or flips would be drawn twice."""
    if augment and not run.network.get("augment"):
        raise BadConfig(
            f"{where}: objective.augment is {augment:g}, but the network is not told of it; set "
            "network.augment (of songunet) to true, or objective.augment to 0."
        )
    if augment and run.training.flip:
        raise BadConfig(
            f"{where}: objective.augment flips images and tells the network, training.flip does not tell it; switch "
            "one of them off."
        )


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image."""
    return 1.0


class EDM:
    """lambda(sigma) |D(y + sigma eps; sigma) - y|^2 at a sigma for every image, ln sigma normal."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.weights = {"denoising": 1.0}

    def plan(self, path: GaussianPath, batch: Batch) -> Hashable:
        """Every step is like every other."""
        return ()

    def terms(self, denoiser: Denoiser, batch: Batch) -> dict[str, Tensor]:
        """{denoising: (B,)}."""
        from pipeline_lib.diffusion.denoiser import perturb
        from pipeline_lib.objectives import _augment

        clean, told = batch.x0, None
        if self.options.augment:
            change = _augment.draw(batch, self.options.augment)
            clean, told = _augment.apply(clean, change), change.labels
        sigma = denoiser.path.draw_times(batch.uniform(Stream.TIME))
        x = perturb(denoiser.path, clean, sigma, self.noise(denoiser, batch))
        predicted = denoiser(x, sigma, batch.labels, *(() if told is None else (told,)))
        loss = ddpm.over_pixels((predicted.x0 - clean).square(), self.options.norm)
        return {"denoising": weight(sigma, denoiser.config.sigma_data) * loss}

    def noise(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """eps of the perturbation."""
        return batch.eps(denoiser.path, Stream.NOISE)


def weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) (Table 1): 1 / c_out^2, so that the loss of the network's own target is not weighted."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def build(options: Options) -> EDM:
    """The objective."""
    return EDM(options)
