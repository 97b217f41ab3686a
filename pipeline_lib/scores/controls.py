"""The controls stage: floor and ceiling of the scores, at the same number of images as every run.

The floor scores real images that no training has seen, the ceiling uniform noise. Where diffusion is trained on
latents, the images of the floor, encoded and decoded, are scored too: what a perfect sampler of latents could reach.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import latent_space
from pipeline_lib.networks.latent_space import LatentSpace
from pipeline_lib.records import provenance, tables
from pipeline_lib.records.costs import Stopwatch
from pipeline_lib.records.store import Manifest
from pipeline_lib.scores.extractors import batches
from pipeline_lib.scores.scoring import Scorer

VERSION = 2
NO_HOLDOUT = "no images were held out: set holdout of the dataset"
NO_COUNT = "no images were held out and scores.samples is null: set one of them"


def run(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    output: Path,
    data: Manifest,
    classifier: Manifest,
    reference: Manifest,
    autoencoder: Manifest | None = None,
) -> None:
    """Score all controls; what cannot be scored is pending, with the reason in its note."""
    watch, where = Stopwatch("controls"), device.pick()
    held_out, shape = reference.facts["held_out"], reference.facts["shape"]
    count = config["samples"] or held_out
    if 0 < held_out < count:
        raise BadConfig(
            f"scores.samples is {count}, but only {held_out} images were held out for the floor; raise holdout of the "
            "dataset, lower scores.samples, or set holdout to 0 to go without a floor."
        )
    scorer = Scorer(classifier, reference, where, config["extrapolate"])
    floor, ceiling = {"nfe": 0, "control": "floor"}, {"nfe": 0, "control": "ceiling"}
    if held_out:
        real = Prepared(data, "holdout").images[:count]
        rows = scorer.rows(partial(batches, real), count, floor)
    else:
        rows = scorer.pending(NO_HOLDOUT, floor)
    if autoencoder and held_out:
        again = partial(reconstructions, latent_space.load(autoencoder, where), real)
        rows += scorer.rows(again, count, {"nfe": 0, "control": "reconstruction"})
    if count:
        rows += scorer.rows(partial(noise_images, count, shape, where), count, ceiling)
    else:
        rows += scorer.pending(NO_COUNT, ceiling)
    inputs = {"data": data, "classifier": classifier, "reference": reference}
    inputs |= {"autoencoder": autoencoder} if autoencoder else {}
    tables.write(output, rows, tables.SCORES, provenance.of("controls", VERSION, config, inputs))
    watch.save(output.parent)


def reconstructions(space: LatentSpace, images: np.ndarray, size: int) -> Iterator[Tensor]:
    """Images uint8 (N,C,H,W), encoded and decoded, in batches of at most `size`."""
    return (space.decode(space.encode(some)) for some in batches(images, size))


def noise_images(count: int, shape: list[int], where: torch.device, size: int) -> Iterator[Tensor]:
    """`count` images (C,H,W) of independent uniform uint8 pixels, in batches of at most `size`; always the same."""
    noise = Noise(0, where)
    for index in torch.arange(count).split(size):
        words = noise.words(Stream.CONTROL, index, 0, prod(shape))
        yield (words >> 24).to(torch.uint8).reshape(len(index), *shape)
