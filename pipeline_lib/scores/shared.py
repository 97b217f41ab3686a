"""Feature extraction by several processes: the first hands out images and goes on alone with all features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from pipeline_lib.device import full_float32
from pipeline_lib.parallel import World
from pipeline_lib.scores.extractors import Extractor

LEAVE = 0  # what the first process says when no more images come; else it says which extractor comes next, from 1 on


@dataclass(frozen=True)
class Shared:
    """A network to features, each process of a world taking `each` images of a batch."""

    network: Callable[[Tensor], Tensor]
    number: int
    each: int
    world: World

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D) of uint8 images (B,C,H,W), at most `each` for every process; for the first process."""
        room = self.room(images.shape[1:], images.device)
        room[: len(images)] = images
        self.world.told(self.number)
        return self.share(room)[: len(images)]

    def room(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Images of nothing, as many as all processes take."""
        return torch.zeros(self.each * self.world.size, *shape, dtype=torch.uint8, device=device)

    def share(self, images: Tensor) -> Tensor:
        """Features of all images that the first process has, in its order; all processes call it."""
        self.world.copy_(images)
        with torch.no_grad(), full_float32(images.device.type):
            own = self.network(images[self.world.rank * self.each :][: self.each])
        return self.world.gather(own)


def shared(extractors: Sequence[Extractor], world: World) -> list[Extractor]:
    """The extractors, whose batches all processes of a world share."""
    if world.size == 1:
        return list(extractors)
    return [
        replace(one, network=Shared(one.network, number, one.batch, world), batch=one.batch * world.size)
        for number, one in enumerate(extractors, 1)
    ]


def help_out(extractors: Callable[[], Sequence[Extractor]], world: World, shape: Sequence[int]) -> None:
    """Extract a share of whatever images (C,H,W) the first process has, until it says that there are no more.

    `extractors` gives those of the first process; it is called once, and only if there are images.
    """
    known = cache(extractors)
    while number := world.told():
        one = known()[number - 1]
        assert isinstance(one.network, Shared)
        one.network.share(one.network.room(shape, one.device))
