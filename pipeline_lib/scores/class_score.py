"""The inception score (Salimans et al., 2016): exp of the mean KL between p(class | image) and its mean over images."""

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.scores.estimates import Estimate

SPLITS = 10  # as published: the score is the mean over ten parts


def estimate(logits: Tensor, splits: int = SPLITS) -> Estimate:
    """Mean score over contiguous parts of the samples, from logits (n, classes); raises ValueError for n < splits.

    The influence of sample i in its part: score * (KL_i - log score), from the derivative of the exponent.
    """
    if len(logits) < splits:
        raise ValueError(f"{len(logits)} samples cannot be split into {splits} parts")
    values, influences = [], []
    for part in logits.double().tensor_split(splits):
        logs = part.log_softmax(1)
        p = logs.exp()
        divergence = (p * (logs - p.mean(0).log())).sum(1)
        values.append(float(divergence.mean().exp()))
        influences.append(values[-1] * (divergence - divergence.mean()))
    return Estimate(float(np.mean(values)), torch.cat(influences).cpu().numpy())
