"""Images to latents and back, through a file."""

from pathlib import Path

import pytest
import torch

from pipeline_lib.config.base import part
from pipeline_lib.data.prepared import to_float, to_uint8
from pipeline_lib.exits import BadConfig, BadData
from pipeline_lib.networks import latent_space
from pipeline_lib.records.store import Manifest, entry

CONFIG = part("networks/autoencoders", {"name": "kl", "channels": 8, "latent_channels": 2}, "autoencoder")
IMAGES = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def manifest() -> Manifest:
    store = entry("autoencoder", 1, CONFIG)
    network = latent_space.build(CONFIG, 1, seed=3)
    latent_space.save(store.folder / latent_space.WEIGHTS, network, CONFIG, (1, 8, 8), 0.25)
    return store.finish([latent_space.WEIGHTS], {})


def test_latents_are_scaled_and_decoding_inverts_the_scale(manifest: Manifest) -> None:
    space, network = latent_space.load(manifest), latent_space.build(CONFIG, 1, seed=3)
    unscaled = network.encode(to_float(IMAGES))
    assert torch.equal(space.encode(IMAGES), unscaled / 0.25)
    assert torch.equal(space.decode(space.encode(IMAGES)), to_uint8(network.decode(unscaled)))
    assert (space.shape, space.image_shape) == ((2, 4, 4), (1, 8, 8))
    assert space.decode(torch.zeros(1, 2, 4, 4)).dtype == torch.uint8


def test_the_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (latent_space.build(CONFIG, 1, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(before, torch.get_rng_state())


def test_damaged_weights_are_bad_data(manifest: Manifest) -> None:
    (Path(manifest.folder) / latent_space.WEIGHTS).write_bytes(b"cut short")
    with pytest.raises(BadData, match="not what it was"):
        latent_space.load(manifest)


def test_a_resolution_that_the_factor_does_not_divide_is_refused() -> None:
    _, options = latent_space.load_part("networks/autoencoders", CONFIG)
    with pytest.raises(BadConfig, match=r"f = 2, which does not divide 9x8: shorten autoencoder\.channel_mult"):
        options.latent_shape((1, 9, 8))
