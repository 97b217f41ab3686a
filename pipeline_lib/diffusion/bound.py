"""The variational bound with learned variances: Nichol and Dhariwal (2021), Eq. 4-6 and 15."""

from math import log

import torch
from torch import Tensor

from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.everywhere import Everywhere
from pipeline_lib.diffusion.grid import Step
from pipeline_lib.diffusion.paths import VPPath

HALF_LEVEL = 1 / 255  # half the distance of two levels of an 8-bit image in [-1, 1]


def learned_variance(step: Step, fraction: Tensor) -> Tensor:
    """The reverse variance of a step that is not the last, of the shape of `fraction` (Eq. 15).

    Its logarithm lies between those of beta~ and beta of this step, however long the step is.
    """
    small, large = (
        torch.as_tensor(v, dtype=torch.float64).log().to(fraction)  # a number, or one for each image
        for v in (step.posterior_variance, step.forward_variance)
    )
    return torch.exp(fraction * large + (1 - fraction) * small)


class Bound:
    """Terms of the bound at each t in {1..T}, of all steps of a path."""

    def __init__(self, path: VPPath) -> None:
        steps = [*reversed(list(path.grid(path.timesteps)))]
        small = [log(step.posterior_variance) for step in steps[1:]]
        small = [*small[:1], *small]  # beta~_1 is 0: the first gets that of t = 2, as released
        rows = zip(small, (log(step.forward_variance) for step in steps), (step.c_x0 for step in steps), strict=True)
        unused = (float("nan"),) * 3  # nothing leads on from t = 0
        self._table = Everywhere(torch.tensor([unused, *rows], dtype=torch.float64).T.to(torch.float32).contiguous())

    def bits(self, x0: Tensor, prediction: Prediction, t: Tensor) -> Tensor:
        """L_{t-1} (B,) in bits per dimension: KL(q(x_{t-1} | x_t, x_0) || p), and -log2 p(x_0 | x_1) at t = 1.

        x0 (B,C,H,W) are 8-bit images in [-1, 1]; x_0 is not clipped, as released. Only the variance has a gradient.
        """
        assert prediction.fraction is not None, "the bound needs a learned variance (diffusion.learned_variance)"
        small, large, c_x0 = (c.reshape(-1, *[1] * (x0.ndim - 1)) for c in self._table.on(t.device)[:, t.long()])
        log_variance = prediction.fraction * large + (1 - prediction.fraction) * small
        mean = prediction.x0.detach()
        kl = kl_of_normals(c_x0 * (x0 - mean), small, log_variance)
        first = (t == 1).reshape(small.shape)  # there the posterior mean is x_0 itself
        nll = discretised_nll(x0, torch.where(first, mean, x0), 0.5 * log_variance)  # a wild guess at T overflows
        return torch.where(first, nll, kl).flatten(1).mean(1) / log(2)


def kl_of_normals(gap: Tensor, log_variance: Tensor, other: Tensor) -> Tensor:
    """KL(N(m, v) || N(m + gap, w)) in nats, elementwise, from ln v and ln w."""
    return 0.5 * (other - log_variance - 1 + torch.exp(log_variance - other) + gap.square() * torch.exp(-other))


def discretised_nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-ln p(x) in nats, elementwise, of 8-bit levels x under a Gaussian cut into 256 bins, whose outer ones reach to
    infinity (Ho et al., 2020, Eq. 13). Exact in both tails, where released code has an approximation and a floor.

    In float64, since the gradient of torch's ln Phi in float32 is wrong beyond 1,000 standard deviations.
    """
    scale = torch.exp(-log_std.double())
    low, high = (x.double() - HALF_LEVEL - mean) * scale, (x.double() + HALF_LEVEL - mean) * scale
    above = low + high > 0  # mirrored there: differences of ln Phi keep their digits below the mean
    near, far = torch.where(above, -low, high), torch.where(above, -high, low)
    ratio = (torch.special.log_ndtr(far) - torch.special.log_ndtr(near)).clamp(max=-1e-12)
    inside = torch.special.log_ndtr(near) + torch.log1p(-torch.exp(ratio))
    lowest, highest = x < -1 + HALF_LEVEL, x > 1 - HALF_LEVEL
    outer = torch.where(lowest, torch.special.log_ndtr(high), torch.special.log_ndtr(-low))
    return -torch.where(lowest | highest, outer, inside).to(x.dtype)
