"""A proxy of the modular error: the KL term of each step in the variational bound (Li and van der Schaar, 2024, Eq. 3).

KL(q(x_u | x_t, x_0) || p_theta(x_u | x_t)) in nats a pixel, averaged over images, of the step from t to the next u of
the grid: squared difference of the means over twice the reverse variance, and what the variances differ. The reverse
variance is that of the ancestral sampler; for others the one that the network has learned, else that of q. Readings:
`training`, at true x_t; `after-step`, at what one step of the sampler has made of the true x_t before. The second still
compares with the x_0 that the step began with, and is a little larger for a perfect network too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline_lib.config.base import Model
from pipeline_lib.errors.anatomy import Measure, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.config.models import Sampling
    from pipeline_lib.diffusion.denoiser import Prediction
    from pipeline_lib.diffusion.grid import Step
    from pipeline_lib.errors.anatomy._views import At


class Options(Model):
    """It has none."""


class ModularError(Measure):
    def at(self, here: At) -> Iterator[Reading]:
        from pipeline_lib.errors.exposure import mean

        if here.is_clean or here.step.is_last:  # at the last step q has no variance
            return
        seen = {"training": here.trained} | ({"after-step": here.after_step} if here.place else {})
        for name, prediction in seen.items():
            known = here.x0[: len(prediction.x)]
            terms = divergence(here.step, known, prediction, here.subject.sampling)
            yield Reading(name, mean(terms), len(terms))


def divergence(step: Step, x0: Tensor, prediction: Prediction, sampling: Sampling) -> Tensor:
    """KL (B,) in nats a pixel, of a step that is not the last, for images x0 (B,C,H,W)."""
    import torch

    from pipeline_lib.diffusion.bound import kl_of_normals

    gap = step.c_x0 * (x0 - prediction.x0)
    own = torch.as_tensor(step.posterior_variance).log().to(gap)
    return kl_of_normals(gap, own, _log_variance(step, prediction, sampling).to(gap)).flatten(1).mean(1)


def _log_variance(step: Step, prediction: Prediction, sampling: Sampling) -> Tensor:
    import torch

    from pipeline_lib.diffusion.bound import learned_variance

    wanted = sampling.sampler["variance"] if sampling.sampler["name"] == "ancestral" else "learned"
    if prediction.fraction is not None and wanted in ("learned", "learned-or-large"):
        return learned_variance(step, prediction.fraction).log()
    large = wanted in ("fixed-large", "learned-or-large")
    return torch.as_tensor(step.forward_variance if large else step.posterior_variance).log()


def build(options: Options) -> ModularError:
    """The measure."""
    return ModularError()
