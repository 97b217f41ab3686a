"""Classifier guidance (Dhariwal and Nichol, 2021): of eps (Algorithm 2), for any sampler, or of the mean (1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline_lib.diffusion.denoiser import Prediction
    from pipeline_lib.diffusion.grid import Step
    from pipeline_lib.samplers import Correction

LogProbabilities = Callable[[Tensor, Tensor], Tensor]  # x_t (B,C,H,W), t (B,) -> ln p(y | x_t) (B, classes)


def guided(log_probabilities: LogProbabilities, labels: Tensor, scale: float, batch: int) -> Correction:
    """eps -> eps - scale s_t grad ln p(labels | x_t), for labels (B,), of at most `batch` images at once.

    At scale 1 and with the true p it turns the score of p(x_t) into that of p(x_t | y); above 1 it sharpens p(y | x_t).
    The network calls of the classifier are not counted as NFE. Corrections that clip x_0 belong behind it.
    """

    def correct(prediction: Prediction, step: Step) -> Prediction:
        slope = _slopes(log_probabilities, prediction.x, step, labels, batch)
        return prediction.with_eps(prediction.eps - scale * prediction.s * slope)

    return correct


class Pushed:
    """The mean of a step of variance Sigma is moved by scale Sigma grad ln p(labels | x_t); the prediction stays."""

    def __init__(self, log_probabilities: LogProbabilities, labels: Tensor, scale: float, batch: int) -> None:
        """The arguments are those of `guided`."""
        self.log_probabilities, self.labels, self.scale, self.batch = log_probabilities, labels, scale, batch

    def __call__(self, prediction: Prediction, step: Step) -> Prediction:
        return prediction

    def push(self, x: Tensor, step: Step) -> Tensor:
        """What the mean is moved by in units of the variance, of the shape of x = x_t."""
        return self.scale * _slopes(self.log_probabilities, x, step, self.labels, self.batch)


def _slopes(log_probabilities: LogProbabilities, x: Tensor, step: Step, labels: Tensor, batch: int) -> Tensor:
    times = torch.as_tensor(step.t, dtype=torch.float32, device=labels.device).expand(len(labels))
    parts = zip(x.split(batch), times.split(batch), labels.split(batch), strict=True)
    return torch.cat([_slope(log_probabilities, *part) for part in parts])


@torch.enable_grad()  # samplers run without gradients
def _slope(log_probabilities: LogProbabilities, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The gradient of ln p(labels | x) in x, of its shape: images do not see each other, so their sum serves."""
    x = x.detach().requires_grad_()
    chosen = log_probabilities(x, t).gather(1, labels[:, None]).sum()
    return torch.autograd.grad(chosen, x)[0]
