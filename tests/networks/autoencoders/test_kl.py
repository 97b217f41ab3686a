"""The KL-regularised autoencoder against closed forms and the published count."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pipeline_lib.networks.autoencoders import kl
from pipeline_lib.networks.autoencoders._kl import kl_to_standard_normal

TINY = kl.Options(channels=8, channel_mult=[1, 2, 2], latent_channels=2, weight=0.5)


def normal(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return kl.build(TINY, 3)


def test_the_kl_term_is_the_closed_form() -> None:
    mean, log_variance = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    laws = Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    assert torch.allclose(kl_to_standard_normal(mean, log_variance), kl_divergence(*laws).flatten(1).sum(1))
    assert float(kl_to_standard_normal(torch.zeros(1, 2), torch.zeros(1, 2))) == 0
    assert float(kl_to_standard_normal(torch.ones(1, 2), torch.zeros(1, 2))) == 1  # 0.5 for each of two means of 1


def test_the_regulariser_is_weighted_against_the_summed_error() -> None:
    """weight * KL + sum of errors, both divided by the 3 * 8 * 8 numbers of an image."""
    network, x = tiny(), torch.rand(3, 3, 8, 8)
    mean, log_variance = network.encoder(x).chunk(2, 1)
    _, regulariser = network(x, normal)
    assert torch.allclose(regulariser, 0.5 * kl_to_standard_normal(mean, log_variance) / (3 * 8 * 8))


def test_the_decoder_sees_a_draw_of_the_latent_in_training_and_its_mean_after() -> None:
    network, x = tiny(), torch.rand(3, 3, 8, 8)
    mean, log_variance = network.encoder(x).chunk(2, 1)
    drawn = mean + (log_variance / 2).exp() * normal((2, 2, 2))
    assert torch.equal(network(x, normal)[0], network.decode(drawn))
    assert torch.equal(network.encode(x), mean)
    assert network.encode(x).shape == (3, 2, 2, 2)
    assert network.decode(mean).shape == x.shape


def test_parameters_are_those_of_stable_diffusions_first_stage() -> None:
    """83,653,863 [memory, high], less its two 1x1 convolutions beside the latent: 8 * 8 + 8 and 4 * 4 + 4."""
    options = kl.Options(channels=128, channel_mult=[1, 2, 4, 4], res_blocks=2, latent_channels=4)
    with torch.device("meta"):
        count = sum(p.numel() for p in kl.build(options, 3).parameters())
    assert count == 83_653_863 - 72 - 20


@pytest.mark.parametrize("mult", [[1], [1, 2], [1, 1, 2, 2]])
def test_the_factor_is_that_of_the_multipliers(mult: list[int]) -> None:
    options = kl.Options(channels=8, channel_mult=mult, latent_channels=2)
    assert options.factor == 2 ** (len(mult) - 1)
    assert kl.build(options, 1).encode(torch.zeros(1, 1, 16, 8)).shape[1:] == options.latent_shape((1, 16, 8))
