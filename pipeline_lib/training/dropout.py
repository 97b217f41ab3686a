"""Dropout masks that do not depend on how a batch is shared, on a CPU.

torch draws the masks of a call one number after the other, so a process that is given some rows of the batch would drop
other numbers than one that is given all. Here every process draws the masks of the global batch and keeps its own
rows, so more processes do not draw faster. Our kernels on a GPU need none of this: their masks are keyed by image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Part:
    """Rows of a global batch of `total` images; `follows`: all calls of the network so far were with these rows."""

    total: int
    rows: range
    follows: bool = True
    own: int = 0  # seed of the masks of other calls

    def begin(self, rows: range, seed: int, own: int) -> None:
        """Before the first call: masks follow the generator of the global batch, seeded by `seed`."""
        self.rows, self.follows, self.own = rows, True, own
        torch.manual_seed(seed)

    def leave(self) -> None:
        """From here on, which images a call holds depends on the part, and so do its masks."""
        if self.follows:
            self.follows = False
            torch.manual_seed(self.own)


class SharedDropout(nn.Dropout):
    """nn.Dropout for a part of a batch: to the bit these rows of what nn.Dropout does to all."""

    def __init__(self, p: float, part: Part) -> None:
        super().__init__(p)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """x (n,...) of the part's n rows, or of k times these; other images have masks of their own."""
        times, rest = divmod(len(x), len(self.part.rows))
        if not self.training or not self.p:
            return x
        if rest or not times:
            self.part.leave()
        if not self.part.follows:
            return super().forward(x)
        masks = F.dropout(x.new_ones(times, self.part.total, *x.shape[1:]), self.p)
        mine = masks[:, self.part.rows.start : self.part.rows.stop]
        return x * mine.clone().flatten(0, 1)  # a view would keep the masks of all until the backward pass


def shared(network: nn.Module, total: int) -> Part:
    """Let all dropout of a network know the part that it is given; the weights and their names stay."""
    part = Part(total, range(total))
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, SharedDropout(child.p, part))
    return part
