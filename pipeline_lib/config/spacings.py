"""Which t a sampling grid visits on a path with discrete steps. No torch: plans refuse impossible grids with it."""

from typing import Literal

import numpy as np

from pipeline_lib.exits import BadConfig

Spacing = Literal["uniform", "leading", "trailing", "quadratic"]


def visited(spacing: Spacing, total: int, nfe: int) -> list[int]:
    """The `nfe` times in {1..total} at which the network is called, from the noise end on.

    `uniform` visits T and 1 and even steps between; `leading` and `trailing` are diffusers' conventions; `quadratic` is
    DDIM-quad of the released code of Song et al. (2021) [found], whose times from 0 on are 1 less: even steps in the
    root of t, from 1 to 0.8 T. Raises BadConfig where there is no such grid.
    """
    if not 1 <= nfe <= total:
        raise BadConfig(f"nfe is {nfe}, but the path has {total} steps.")
    if spacing == "leading":
        return [1 + i * (total // nfe) for i in reversed(range(nfe))]
    if spacing == "trailing":
        return [round(total - i * total / nfe) for i in range(nfe)]
    if spacing == "quadratic":
        return _quadratic(total, nfe)
    return [total] if nfe == 1 else [round(total - i * (total - 1) / (nfe - 1)) for i in range(nfe)]


def _quadratic(total: int, nfe: int) -> list[int]:
    largest = next((n for n in range(nfe, 1, -1) if _differ(_squares(total, n))), None)
    if nfe == 1 or largest is None:
        raise BadConfig(f"spacing quadratic with nfe {nfe} would call the network at t = 1 alone: take at least 2.")
    if largest < nfe:
        raise BadConfig(
            f"spacing quadratic visits a t twice with nfe {nfe} on a path of {total} steps: take at most {largest}."
        )
    return _squares(total, nfe)


def _squares(total: int, nfe: int) -> list[int]:
    """In floating point and rounded down as released: exact squares may fall by 1."""
    return [1 + int(square) for square in reversed(np.linspace(0, np.sqrt(total * 0.8), nfe) ** 2)]


def _differ(times: list[int]) -> bool:
    return len(set(times)) == len(times)
