"""Classifier guidance (Dhariwal and Nichol, 2021): towards labels y by the gradient of ln p(y | x_t).

Algorithm 2 has eps - scale s_t grad ln p in place of eps, for any sampler. Algorithm 1 moves the mean of a reverse step
of variance Sigma by scale Sigma grad ln p, for ancestral sampling. The labels are those of the chains, given to the
network as well where it is conditional. The classifier is a run of its own (objective noisy-classifier).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.base import Model

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.diffusion.denoiser import Denoiser
    from pipeline_lib.diffusion.paths import GaussianPath
    from pipeline_lib.samplers import Correction


class Options(Model):
    """How much, and by whose gradient."""

    scale: float = Field(
        ge=0, description="w: 1 is Bayes' rule for a network that is not conditional, more sharpens, 0 changes nothing"
    )
    classifier: str = Field(
        pattern="^[^/]+/[^/]+$",
        description="'method/variant' of a noisy-classifier, of the same dataset, seed and path",
    )
    form: Literal["eps", "mean"] = Field(
        "eps",
        description="what is moved: eps, before x_0 is clipped (Algorithm 2), or the mean of a step of the sampler "
        "ancestral, behind it (Algorithm 1, as released for ancestral chains)",
    )


def build(options: Options, path: GaussianPath, steps: int, guide: Denoiser, labels: Tensor, batch: int) -> Correction:
    """The correction towards labels (B,) by the classifier `guide`, which is given `batch` images at once."""
    from pipeline_lib.samplers._guidance import Pushed, guided

    if options.scale == 0:
        return lambda prediction, step: prediction
    form = guided if options.form == "eps" else Pushed
    return form(guide.log_probabilities, labels, options.scale, batch)
