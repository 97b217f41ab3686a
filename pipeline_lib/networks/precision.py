"""Networks that compute in bfloat16, with float32 weights behind them."""

import copy

import torch
from torch import nn


class Halved:
    """A copy of a network whose convolutions and linear layers compute in bfloat16.

    Their weights are copies; all other parameters, those of normalisations and biases of convolutions among them, are
    the network's own. `refresh` after the network's weights have changed.
    """

    def __init__(self, network: nn.Module) -> None:
        shared = {id(p): p for p in (*network.parameters(), *network.buffers())}
        self.network = copy.deepcopy(network, shared)  # modules are new, parameters and buffers those of `network`
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        for module in self.network.modules():
            names = {nn.Conv2d: ("weight",), nn.Linear: ("weight", "bias")}.get(type(module), ())
            for name in names:
                own = getattr(module, name)
                if own is not None:
                    half = nn.Parameter(own.detach().to(torch.bfloat16), requires_grad=own.requires_grad)
                    setattr(module, name, half)
                    self.pairs.append((own, half))

    def refresh(self) -> None:
        """Take over the weights of the network."""
        torch._foreach_copy_([half.detach() for _, half in self.pairs], [own.detach() for own, _ in self.pairs])
