"""The exponential moving average of the weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline_lib.config.models import Training


class Ema:
    """decay * average + (1 - decay) * weights, every `ema_every` steps."""

    def __init__(self, network: nn.Module, config: Training) -> None:
        self.network, self.config = network, config
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def update(self, done: int) -> None:
        """Take in the weights after `done` steps."""
        if done % self.config.ema_every:
            return
        decay = self.config.ema_decay
        if self.config.ema_warmup:
            count = done // self.config.ema_every
            decay = min(decay, (1 + count) / (10 + count))
        current = [v.detach() for v in self.network.state_dict().values()]
        torch._foreach_lerp_(list(self.state.values()), current, 1 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self.state = state

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The network with the averaged weights, and back."""
        current = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(current)
