"""The VQ-regularised autoencoder against brute force, by its gradients, and its count."""

import torch

from pipeline_lib.networks.autoencoders import vq
from pipeline_lib.networks.autoencoders._vq import straight_through

TINY = vq.Options(channels=8, channel_mult=[1, 2], latent_channels=3, codes=11, commitment=0.25)


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    network = vq.build(TINY, 1)
    torch.nn.init.normal_(network.codebook.weight)
    return network


def test_quantisation_is_the_nearest_neighbour_by_brute_force() -> None:
    network, z = tiny(), torch.randn(2, 3, 4, 5)
    codes = network.codebook.weight.detach()
    quantised = network.quantise(z).detach()
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)):
        distances = [float((z[b, :, i, j] - code).square().sum()) for code in codes]
        assert torch.equal(quantised[b, :, i, j], codes[distances.index(min(distances))])


def test_a_code_is_quantised_to_itself() -> None:
    network = tiny()
    codes = network.codebook.weight.T[None, :, None]  # (1, 3, 1, 11)
    assert torch.equal(network.quantise(codes), codes)


def test_the_gradient_passes_straight_through() -> None:
    z, quantised = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    through, weight = straight_through(z, quantised), torch.randn(2, 3, 4, 4)
    assert torch.allclose(through, quantised)
    (through * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert quantised.grad is None


def test_codes_learn_from_latents_and_latents_from_codes_a_quarter_as_much() -> None:
    network, z = tiny(), torch.randn(2, 3, 4, 4, requires_grad=True)
    quantised = network.quantise(z)
    quantised.retain_grad()
    network.penalty(z, quantised).sum().backward()
    assert torch.allclose(quantised.grad, 2 * (quantised - z).detach())
    assert torch.allclose(z.grad, 0.25 * 2 * (z - quantised).detach())


def test_the_encoder_learns_from_the_reconstruction() -> None:
    network = tiny()
    images, regulariser = network(torch.rand(2, 1, 8, 8), lambda shape: torch.zeros(shape))
    images.square().sum().backward()
    assert regulariser.shape == (2,)
    assert float(network.encoder[0].weight.grad.abs().max()) > 0
    assert network.codebook.weight.grad is None  # straight through: codes learn from the regulariser alone


def test_encoding_leaves_the_quantisation_to_decoding() -> None:
    network, x = tiny(), torch.rand(2, 1, 8, 8)
    z = network.encode(x)
    assert torch.equal(z, network.encoder(x))
    assert torch.equal(network.decode(z), network.decode(network.quantise(z)))
    assert torch.equal(network.decode(z), network.decoder(network.quantise(z)))


def test_parameters_of_ldm_vq_4() -> None:
    """55.32M as its log says [memory, medium], less two 1x1 convolutions of 12 parameters."""
    options = vq.Options(channels=128, channel_mult=[1, 2, 4], res_blocks=2, latent_channels=3, codes=8192)
    with torch.device("meta"):
        count = sum(p.numel() for p in vq.build(options, 3).parameters())
    assert count == 55_322_758
    assert options.latent_shape((3, 256, 256)) == (3, 64, 64)
