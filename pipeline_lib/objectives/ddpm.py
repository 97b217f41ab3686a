"""DDPM: the simple loss of Ho et al. (2020), Eq. 14, in the parametrisation that the network predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoising, Prediction
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.objectives import Batch


class Options(Model):
    """Options of the simple loss."""

    norm: Literal["mean", "sum"] = Field("mean", description="squared norm averaged over pixels, or summed (Eq. 14)")
    weighting: Literal["none", "snr/(snr+1)"] = Field(
        "none",
        description="factor of the squared norm at t, with SNR = a_t^2 / s_t^2; SNR / (SNR + 1) on a prediction of v "
        "gives the simple loss of eps",
    )


PRESETS: dict[str, dict[str, Any]] = {
    # Ho et al. (2020), Sec. 4 and App. B; CIFAR-10
    "paper": {
        "diffusion": {"schedule": "linear", "prediction": "eps"},
        "training": {
            "lr": 2e-4,
            "lr_decay": "none",
            "adam_betas": [0.9, 0.999],
            "warmup_steps": 5000,
            "grad_clip": 1.0,
            "ema_decay": 0.9999,
            "ema_every": 1,
            "ema_warmup": False,
            "flip": True,
        },
    },
    # the base model in the released code of Li and van der Schaar (2024): the control of `ddpm-reg` in preset released
    "released": {
        "diffusion": {"schedule": "sigmoid", "prediction": "v"},
        "objective": {"weighting": "snr/(snr+1)"},
        "training": {
            "steps": 500_000,
            "batch_size": 128,
            "lr": 1e-4,
            "lr_decay": "none",
            "adam_betas": [0.9, 0.99],
            "warmup_steps": 0,
            "grad_clip": 1.0,
            "ema_decay": 0.995,
            "ema_every": 10,
            "ema_warmup": False,
            "flip": True,
        },
    },
}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where the network would give a variance that nothing trains."""
    if run.diffusion.learned_variance:
        raise BadConfig(
            f"{where}: {run.objective['name']} does not train a variance; switch diffusion.learned_variance off, or "
            "take the objective adm."
        )


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image."""
    return 1.0


class DDPM:
    """L_simple at a uniform t for every image."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.weights = {"simple": 1.0}

    def plan(self, path: GaussianPath, batch: Batch) -> Hashable:
        """Every step is like every other."""
        return ()

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """{simple: (B,)}."""
        t = denoiser.path.draw_times(batch.uniform(Stream.TIME))
        x, eps = self.noised(denoiser.path, batch, t)
        return {"simple": self.loss(denoiser(x, t, batch.labels), batch.x0, eps)}

    def loss(self, predicted: Prediction, x0: Tensor, eps: Tensor) -> Tensor:
        """(B,): squared norm of the error of a prediction where x_0 and eps are the truth, weighted."""
        loss = over_pixels((predicted.output - predicted.target(x0, eps)).square(), self.options.norm)
        if self.options.weighting == "none":
            return loss
        a, s = predicted.a.flatten(), predicted.s.flatten()
        return loss * a**2 / (a**2 + s**2)

    def noised(self, path: GaussianPath, batch: Batch, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given at t (B,), and the eps that it shall find in it."""
        from pipeline_lib.diffusion.denoiser import perturb

        eps = batch.normal(Stream.NOISE)
        return perturb(path, batch.x0, t, eps), eps


def over_pixels(values: Tensor, norm: Literal["mean", "sum"]) -> Tensor:
    """(B,): the mean or the sum of values (B,C,H,W) over all but images."""
    return values.flatten(1).mean(1) if norm == "mean" else values.flatten(1).sum(1)


def build(options: Options) -> DDPM:
    """The objective."""
    return DDPM(options)
