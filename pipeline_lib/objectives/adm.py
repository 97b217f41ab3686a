"""ADM: the hybrid loss of Nichol and Dhariwal (2021), Eq. 16, as Dhariwal and Nichol (2021) and Ning et al. use it.

L = L_simple + lambda L_vlb, the second for the learned variance alone. Tags say how sure a value is: [found] in the
published text or code, [memory] recollected and not seen, [derived] worked out here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.base import Model
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import ddpm
from pipeline_lib.objectives._times import LossSecondMoment

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoising
    from pipeline_lib.diffusion.paths import GaussianPath, VPPath
    from pipeline_lib.objectives import Batch

NEEDS_PIXELS = True  # the bound ends with the likelihood of 8-bit levels


class Options(Model):
    """Options of the hybrid loss."""

    lambda_vlb: float = Field(
        0.001,
        gt=0,
        allow_inf_nan=False,
        description="weight of the variational bound, a sum over t in bits per dimension; 0.001 makes the T / 1000 of "
        "the released `rescale_learned_sigmas` [found]",
    )
    time_sampling: Literal["uniform", "loss-second-moment"] = Field(
        "loss-second-moment",
        description="law of t: uniform, or in proportion to the root mean square of the last losses at t, with weights "
        "that keep the mean of the loss [found]",
    )


PRESETS: dict[str, dict[str, Any]] = {
    # CIFAR-10; the commands and defaults of the code of Ning et al. (2023), built on that of Dhariwal and Nichol
    "paper": {
        "diffusion": {"schedule": "cosine", "prediction": "eps", "learned_variance": True},  # [found]
        "network": {"name": "adm", "dropout": 0.3},  # [found]
        "objective": {"lambda_vlb": 0.001, "time_sampling": "loss-second-moment"},  # [found]
        "training": {
            "batch_size": 128,  # 2 devices with 64 images [found]
            "lr": 1e-4,  # [found]
            "lr_decay": "none",  # [found]
            "adam_betas": [0.9, 0.999],  # those of torch [found]
            "warmup_steps": 0,  # [memory, high]
            "grad_clip": None,  # [memory, high]
            "ema_decay": 0.9999,  # [found]
            "ema_every": 1,  # [found]
            "ema_warmup": False,  # [memory, high]
            "flip": True,  # on by default in the code [found]; one released state of it has the flip commented out
        },
    },
}


def check(options: Options, run: Run, where: str) -> None:
    """Raise BadConfig where there is no variance to be learned."""
    if not run.diffusion.learned_variance:
        raise BadConfig(f"{where}: {run.objective['name']} trains a variance; set diffusion.learned_variance to true.")


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image."""
    return 1.0


class ADM:
    """The simple loss and the bound of every image, at t drawn by loss where asked for."""

    def __init__(self, options: Options) -> None:
        from pipeline_lib.diffusion.bound import Bound

        self.options, self.simple = options, ddpm.DDPM(ddpm.Options())
        self.weights = {"simple": 1.0, "vlb": options.lambda_vlb}
        self.times = LossSecondMoment() if options.time_sampling == "loss-second-moment" else None
        self._seen: Tensor | None = None
        self._bound = lru_cache(maxsize=1)(Bound)

    def plan(self, path: GaussianPath, batch: Batch) -> Hashable:
        """Every step is like every other."""
        return ()

    def terms(self, denoiser: Denoising, batch: Batch) -> dict[str, Tensor]:
        """{simple: (B,), vlb: (B,)}; vlb is T times one term of the bound, so that its mean over t is the sum."""
        import torch

        path, u = _discrete(denoiser), batch.uniform(Stream.TIME)
        t, weight = self.times.draw(path.timesteps, u) if self.times else (path.draw_times(u), 1.0)
        x, eps = self.noised(path, batch, t)
        predicted = denoiser(x, t, batch.labels)
        simple = (predicted.output - predicted.target(batch.x0, eps)).square().flatten(1).mean(1)
        vlb = path.timesteps * self._bound(path).bits(batch.x0, predicted, t)
        self._seen = torch.stack((t, (simple + self.options.lambda_vlb * vlb).detach()), 1) if self.times else None
        return {"simple": weight * simple, "vlb": weight * vlb}

    def noised(self, path: GaussianPath, batch: Batch, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given at t (B,), and the eps that it shall find in it."""
        return self.simple.noised(path, batch, t)

    def seen(self) -> Tensor | None:
        """t and loss (B, 2) of the last images, None where times do not depend on them."""
        return self._seen

    def remember(self, rows: Tensor) -> None:
        """Let later times depend on `seen` of a whole batch."""
        assert self.times, "times do not depend on losses"
        self.times.record(*rows.unbind(1))

    def state(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return self.times.state() if self.times else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        if self.times:
            self.times.load(state)


def _discrete(denoiser: Denoising) -> VPPath:
    """The path, which must have steps 1..T."""
    from pipeline_lib.diffusion.paths import VPPath

    assert isinstance(denoiser.path, VPPath), "this objective needs a path of discrete steps"
    return denoiser.path


def build(options: Options) -> ADM:
    """The objective."""
    return ADM(options)
