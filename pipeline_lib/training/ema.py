"""The exponential moving average of the weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline_lib.config.averages import decay_at
from pipeline_lib.config.models import Training


class Ema:
    """decay * average + (1 - decay) * weights, every `ema_every` steps; the decay may be given as a half-life."""

    def __init__(self, network: nn.Module, config: Training) -> None:
        self.network, self.config = network, config
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.current = [v.detach() for v in network.state_dict().values()]

    def update(self, done: int) -> None:
        """Take in the weights after `done` steps."""
        if done % self.config.ema_every:
            return
        decay = decay_at(self.config, done // self.config.ema_every)
        torch._foreach_lerp_(list(self.state.values()), self.current, 1 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, own in self.state.items():
            own.copy_(state[name])

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The network with the averaged weights, and back."""
        current = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(current)


class Averages:
    """The further averages of a training, by name: each an `Ema` with a length of its own."""

    def __init__(self, network: nn.Module, config: Training) -> None:
        self.emas = {name: Ema(network, config.averaged(name)) for name in config.averages}

    def update(self, done: int) -> None:
        """Take in the weights after `done` steps."""
        for ema in self.emas.values():
            ema.update(done)

    @property
    def state(self) -> dict[str, dict[str, Tensor]]:
        """The averages, and what `load` takes from a checkpoint."""
        return {name: ema.state for name, ema in self.emas.items()}

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """From a checkpoint."""
        for name, ema in self.emas.items():
            ema.load(state[name])
