"""How long averages of the weights are, and which samplings differ in nothing but the average that they draw from."""

import json
from collections.abc import Mapping
from math import log
from typing import Any

from pipeline_lib.config.models import EMA, Training

RAMP = 0.05  # largest half-life over the images seen before, while the average warms up (the released code of EDM)
APART = ("weights", "control", "methods", "published", "grid", "family")  # of a sampling: no part of how it draws


def decay_at(config: Training, count: int) -> float:
    """Decay of update number `count`, from 1 on."""
    if config.ema_halflife_images is None:
        return min(config.ema_decay, (1 + count) / (10 + count)) if config.ema_warmup else config.ema_decay
    images, half_life = config.batch_size * config.ema_every, config.ema_halflife_images
    if config.ema_warmup:
        half_life = min(half_life, RAMP * images * (count - 1))
    return 0.5 ** (images / half_life) if half_life else 0.0


def halflives(config: Training) -> dict[str, float]:
    """Half-life in images of each average by the decay of its last update, which a warm-up may still hold down.

    0: the weights themselves.
    """
    return {name: _halflife(config.averaged(name)) for name in (EMA, *config.averages)}


def _halflife(config: Training) -> float:
    decay = decay_at(config, max(1, config.steps // config.ema_every))
    return config.batch_size * config.ema_every * log(0.5) / log(decay) if decay else 0.0


def strips(samplings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Sampling -> the first of those that draw as it does from other averages, by their JSON; others are left out."""
    alike: dict[str, list[str]] = {}
    for name, one in samplings.items():
        key = json.dumps({k: v for k, v in one.items() if k not in APART}, sort_keys=True)
        alike.setdefault(key, []).append(name)
    several = [names for names in alike.values() if len({weights(samplings[name]) for name in names}) > 1]
    return {name: names[0] for names in several for name in names}


def weights(sampling: Mapping[str, Any]) -> str:
    """The average that a sampling draws from, given its JSON."""
    return str(sampling.get("weights", EMA))
