"""PFGM++ (Xu et al., 2023): EDM with the heavy-tailed noise of path pfgm; sigma, weights and network stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline_lib.config.load import merge
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import edm

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Run
    from pipeline_lib.diffusion.denoiser import Denoiser
    from pipeline_lib.objectives import Batch


class Options(edm.Options):
    """Options of PFGM++."""

    beta_clip: float = Field(
        0.0, ge=0, lt=0.5, description="c: in training, B of the radius R = r (B / (1 - B))^(1/2) is held to [c, 1 - c]"
    )


_PAPER = merge(edm.PRESETS["paper"], {"diffusion": {"path": "pfgm"}})
PRESETS: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    "released": merge(_PAPER, {"objective": {"beta_clip": 1e-3}}),
}


def check(options: Options, run: Run, where: str) -> None:
    """Raises BadConfig for another path, and where the network cannot be told of an augmentation."""
    if run.diffusion.path != "pfgm":
        raise BadConfig(f"{where}: objective pfgmpp needs diffusion.path pfgm (it is {run.diffusion.path}).")
    edm.check_augmentation(options.augment, run, where)


def network_calls(options: Options, run: Run) -> float:
    """Images through the network per training image."""
    return 1.0


class PFGMpp(edm.EDM):
    """The objective of EDM with the noise of its path, whose radius may be clipped."""

    options: Options

    def noise(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """eps of the perturbation."""
        eps = super().noise(denoiser, batch)
        clip = self.options.beta_clip
        return clipped(eps, denoiser.config.extra_dimensions, clip) if clip else eps


def clipped(eps: Tensor, freedom: int, clip: float) -> Tensor:
    """eps (B,C,H,W) with B held to [clip, 1 - clip], where |eps|^2 = D B / (1 - B)."""
    odds = eps.flatten(1).square().sum(1) / freedom
    factor = (odds.clamp(clip / (1 - clip), (1 - clip) / clip) / odds).sqrt()
    return eps * factor.reshape(-1, *[1] * (eps.ndim - 1))


def build(options: Options) -> PFGMpp:
    """The objective."""
    return PFGMpp(options)
