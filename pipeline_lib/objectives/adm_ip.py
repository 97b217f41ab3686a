"""ADM-IP: ADM with input perturbation, Ning et al. (ICML 2023). The bound too sees the perturbed input [found]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline_lib.config.load import merge
from pipeline_lib.objectives import adm, ddpm_ip

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.objectives import Batch

NEEDS_PIXELS, check, network_calls, input_noise = adm.NEEDS_PIXELS, adm.check, adm.network_calls, ddpm_ip.input_noise


class Options(adm.Options):
    """Options of the hybrid loss with perturbed input."""

    gamma: float = ddpm_ip.GAMMA


PRESETS: dict[str, dict[str, Any]] = {
    "paper": merge(adm.PRESETS["paper"], {"objective": {"gamma": 0.1}}),  # [found]
    "released": merge(adm.PRESETS["paper"], {"objective": {"gamma": 0.15}}),  # its command for CIFAR-10 [found]
}


class ADMIP(adm.ADM):
    """The hybrid loss of a network whose input has more noise than its target."""

    options: Options

    def noised(self, path: GaussianPath, batch: Batch, t: Tensor) -> tuple[Tensor, Tensor]:
        """y_t, and the eps that the network shall find in it."""
        y, eps, _ = ddpm_ip.perturbed(path, batch, t, self.options.gamma)
        return y, eps


def build(options: Options) -> ADMIP:
    """The objective."""
    return ADMIP(options)
