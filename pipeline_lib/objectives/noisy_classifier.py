"""A classifier p(y | x_t) of noisy images, for guidance: cross-entropy at uniform t.

Dhariwal and Nichol (2021), Sec. 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoiser
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.objectives import Batch


class Options(Model):
    """The objective has no options."""


PRESETS: dict[str, dict[str, Any]] = {
    # released commands for ImageNet 128x128 [memory, high]; neither warm-up, clipping nor a weight average there
    "paper": {
        "network": {"name": "encoder"},
        "training": {
            "steps": 300_000,
            "batch_size": 256,
            "lr": 3e-4,
            "lr_decay": "linear",
            "weight_decay": 0.05,
            "warmup_steps": 0,
            "grad_clip": None,
            "ema_decay": 0.0,
            "ema_warmup": False,
            "flip": True,
        },
    }
}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where the network is none that classifies, or is told the answer, or the path is not discrete."""
    if run.network["name"] != "encoder":
        raise BadConfig(f"{where}: noisy-classifier trains the network encoder; set network.name to it.")
    if run.network["conditional"]:
        raise BadConfig(
            f"{where}: network.conditional would tell the classifier the label that it shall find; set it to false."
        )
    if run.diffusion.path != "vp":
        raise BadConfig(f"{where}: noisy-classifier is for a path with discrete steps (diffusion.path vp).")


class NoisyClassifier:
    """Cross-entropy of the label given x_t at a uniform t for every image; `wrong`, the share of errors, is shown."""

    def __init__(self) -> None:
        self.weights = {"cross-entropy": 1.0, "wrong": 0.0}

    def plan(self, path: GaussianPath, batch: Batch) -> Hashable:
        """Every step is like every other."""
        return ()

    def terms(self, denoiser: Denoiser, batch: Batch) -> dict[str, Tensor]:
        """{cross-entropy: (B,) in nats, wrong: (B,) 1 where the likeliest label is not the true one}."""
        from pipeline_lib.diffusion.denoiser import perturb

        assert batch.labels is not None, "the network is built for a dataset with labels only"
        t = denoiser.path.draw_times(batch.uniform(Stream.TIME))
        x = perturb(denoiser.path, batch.x0, t, batch.normal(Stream.NOISE))
        found = denoiser.log_probabilities(x, t)
        surprise = -found.gather(1, batch.labels[:, None])[:, 0]
        return {"cross-entropy": surprise, "wrong": (found.argmax(1) != batch.labels).to(found.dtype)}


def build(options: Options) -> NoisyClassifier:
    """The objective."""
    return NoisyClassifier()


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image."""
    return 1.0
