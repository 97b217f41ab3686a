"""Constants that are wanted on several devices."""

import torch
from torch import Tensor


class Everywhere:
    """A tensor with a copy on each device that has asked; copies stay, since recordings on a GPU read them."""

    def __init__(self, values: Tensor) -> None:
        self.copies = {values.device: values}

    def on(self, where: torch.device) -> Tensor:
        """The copy there."""
        if where not in self.copies:
            self.copies[where] = next(iter(self.copies.values())).to(where)
        return self.copies[where]
