"""Networks from a run: fresh weights, their number, and how their output is read."""

import pytest
import torch

from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, perturb
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained

SHAPE = (1, 8, 8)
SMALL = {"channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "attention_resolutions": [4], "dropout": 0.0}


def a_run(network: dict | None = None, **diffusion: object) -> Run:
    values = {
        "diffusion": {"timesteps": 100, **diffusion},
        "network": {**SMALL, **(network or {})},
        "objective": "ddpm",
    }
    return parse(Run, values)


def test_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (trained.build(a_run(), SHAPE, 0, seed).network.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])


@pytest.mark.parametrize(("network", "classes"), [({}, 0), ({"conditional": True}, 10), ({"channel_mult": [2, 1]}, 0)])
def test_parameters_are_counted_without_making_them(network: dict, classes: int) -> None:
    one = a_run(network)
    made = trained.build(one, SHAPE, classes).network
    assert trained.parameters(one, SHAPE, classes) == sum(p.numel() for p in made.parameters())


def test_a_learned_variance_takes_a_second_set_of_outputs() -> None:
    denoiser = trained.build(a_run(learned_variance=True), SHAPE, 0)
    torch.nn.init.normal_(denoiser.network.last.weight)
    x, t = torch.randn(2, *SHAPE), torch.tensor([1.0, 50.0])
    output = denoiser.network(x, denoiser.path.condition(t), None)
    predicted = denoiser(x, t)
    assert torch.equal(predicted.output, output[:, :1])
    assert torch.equal(predicted.fraction, (output[:, 1:] + 1) / 2)
    assert torch.equal(predicted.with_x0(x).fraction, predicted.fraction)


def test_the_preconditioned_target_has_unit_variance_whatever_sigma() -> None:
    """EDM's c_skip, c_out and c_in make input and target of the network unit normal for N(0, sigma_data^2) data."""
    sent = []

    class Spy(torch.nn.Module):
        def forward(self, x: torch.Tensor, condition: torch.Tensor, labels: object) -> torch.Tensor:
            sent.append((x, condition))
            return torch.zeros_like(x)

    config = Diffusion(path="edm", prediction="edm", sigma_data=0.3)
    denoiser = Denoiser(Spy(), paths.build(config), config)
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.01, 0.5, 30.0):
        x0, eps = (torch.randn(4000, *SHAPE, generator=generator) * std for std in (0.3, 1.0))
        t = torch.full((4000,), sigma)
        x = perturb(denoiser.path, x0, t, eps)
        skipped = denoiser(x, t).x0  # of a network that says 0
        out = sigma * 0.3 / (sigma**2 + 0.3**2) ** 0.5
        assert ((x0 - skipped) / out).var().item() == pytest.approx(1, rel=0.02)
        assert sent[-1][0].var().item() == pytest.approx(1, rel=0.02)
        assert sent[-1][1][0].item() == pytest.approx(torch.tensor(sigma).log().item() / 4)


@pytest.mark.parametrize(
    ("diffusion", "sentence"),
    [
        ({"path": "edm"}, "prediction eps does not serve path edm"),
        ({"prediction": "edm"}, "prediction edm does not serve path vp"),
        (
            {"path": "edm", "prediction": "edm", "learned_variance": True},
            "learned_variance is for a path with discrete",
        ),
    ],
)
def test_predictions_that_do_not_serve_the_path_are_refused(diffusion: dict, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        a_run(**diffusion)
