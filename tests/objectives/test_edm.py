"""EDM on Gaussian data: expected loss, stationarity, training; weights, presets, refusals, the page."""

import copy
from math import exp, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline_lib import registry
from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.models import Diffusion, Run, parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser, Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import Batch, edm
from tests.config.test_plan import changed
from tests.workflow.conftest import ROOT

DOCS = ROOT / "docs" / "methods"
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
CONFIG = Diffusion(path="edm", prediction="edm")
PATH = paths.build(CONFIG)
EDGES = torch.linspace(-4, 1.6, 13)  # of ln sigma, between which a Bent denoiser has weights of its own


class Bent(nn.Module):
    """The exact denoiser plus (gain x + offset) c_out / (sigma^2 + sigma_data^2)^(1/2), with other weights for each
    range of sigma: gain (14, D, D) and offset (14, D), the first unused."""

    def __init__(self) -> None:
        super().__init__()
        self.path, self.config = PATH, CONFIG
        self.gain = nn.Parameter(torch.zeros(len(EDGES) + 1, 2, 2))
        self.offset = nn.Parameter(torch.zeros(len(EDGES) + 1, 2))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        place = torch.bucketize(t.log(), EDGES).clamp(min=1)
        total = (t**2 + CONFIG.sigma_data**2)[:, None]
        bend = torch.einsum("nij,nj->ni", self.gain[place], x.flatten(1)) / total.sqrt() + self.offset[place]
        bend = bend * t[:, None] * CONFIG.sigma_data / total.sqrt()
        return Prediction(x, torch.ones_like(t), t, posterior_mean(x, t) + bend.reshape(x.shape), "x0")


def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x] for DATA: along each principal axis towards the mean, by v / (v + sigma^2)."""
    mean, covariance = (moment.float() for moment in DATA.moments())
    values, axes = torch.linalg.eigh(covariance)
    along = (x.flatten(1) - mean) @ axes * (values / (values + sigma[:, None] ** 2))
    return (mean + along @ axes.T).reshape(x.shape)


AT = kit.Problem(PATH, DATA, "x0")


def integrated(value: Any) -> float:
    """The mean over ln sigma ~ N(-1.2, 1.2^2) of a function of sigma."""
    z = np.linspace(-6, 6, 2001)
    values = [value(exp(-1.2 + 1.2 * u)) for u in z]
    return float(np.trapezoid(values * np.exp(-(z**2) / 2) / sqrt(2 * pi), z))


def test_the_loss_of_the_exact_denoiser_is_its_closed_form() -> None:
    """The weighted posterior variance of x_0, (1 / v + 1 / sigma^2)^-1 along each principal axis."""
    variances = np.linalg.eigvalsh([[0.3, 0.1], [0.1, 0.2]])

    def of(sigma: float) -> float:
        return (sigma**2 + 0.25) / (0.25 * sigma**2) * float(np.mean(1 / (1 / variances + 1 / sigma**2)))

    mean, error = kit.expected_loss(edm.build(edm.Options()), Bent(), AT)
    assert mean == pytest.approx(integrated(of), abs=4 * error)
    assert error < 0.02 * mean
    summed, _ = kit.expected_loss(edm.build(edm.Options(norm="sum")), Bent(), AT)
    assert summed == pytest.approx(2 * mean, rel=1e-5)


def test_it_is_stationary_at_the_exact_denoiser_and_nowhere_near() -> None:
    objective, moved = edm.build(edm.Options()), Bent()
    scores = kit.gradient_scores(objective, moved, AT)
    used = scores[torch.isfinite(scores)]
    assert len(used) == 13 * 6
    assert float(used.abs().max()) < 4.5
    assert float(used.square().mean()) < 2
    with torch.no_grad():
        moved.offset += 0.1
    assert float(kit.gradient_scores(objective, moved, AT).nan_to_num().abs().max()) > 8


def test_training_ends_at_the_exact_denoiser() -> None:
    objective, bent = edm.build(edm.Options()), Bent()
    with torch.no_grad():
        bent.gain += 0.3
    started = float(bent.gain.detach().square().mean())
    adam = torch.optim.Adam(bent.parameters(), lr=0.02)
    for step in range(400):
        adam.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        adam.zero_grad()
        kit.loss(objective, bent, AT.batch(500, step)).backward()
        adam.step()
    within = slice(4, 12)  # ranges of sigma that are drawn often
    assert float(bent.gain.detach()[within].square().mean()) < 0.01 * started


class Silent(nn.Module):
    """A network whose output is zero."""

    def forward(self, x: Tensor, condition: Tensor, *more: Tensor | None) -> Tensor:
        return torch.zeros_like(x)


def batch(count: int, step: int = 0, std: float = 0.5) -> Batch:
    x0 = std * Noise(9).normal(Stream.FORWARD, torch.arange(count), step, (1, 4, 4))
    return Batch(x0, None, torch.arange(count), step, None, Noise(0))


def test_at_the_start_the_loss_is_one_at_every_sigma() -> None:
    """What the preconditioning is for (App. B.6): data of deviation sigma_data, a network that says nothing."""
    drawn = batch(40_000)
    loss = edm.build(edm.Options()).terms(Denoiser(Silent(), PATH, CONFIG), drawn)["denoising"]
    sigma = PATH.draw_times(drawn.uniform(Stream.TIME))
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 1), (1, 3), (3, 100)):
        values = loss[(sigma >= low) & (sigma < high)]
        assert float(values.mean()) == pytest.approx(1, abs=5 * float(values.std()) / len(values) ** 0.5)
    assert float(loss.std()) < 0.5


def test_terms_are_per_image_and_do_not_depend_on_the_batch() -> None:
    whole = batch(8)
    part = Batch(whole.x0[3:5], None, whole.index[3:5], 0, None, whole.noise)
    denoiser, objective = Denoiser(Silent(), PATH, CONFIG), edm.build(edm.Options())
    both = [objective.terms(denoiser, one)["denoising"] for one in (whole, part)]
    assert both[0].shape == (8,)
    assert torch.allclose(both[0][3:5], both[1])


class Asked(Denoiser):
    """Keeps what it was told."""

    def forward(
        self, x: Tensor, t: Tensor | float, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Prediction:
        self.told = augment
        return super().forward(x, t, labels, augment)


def test_the_network_is_told_how_images_are_augmented() -> None:
    denoiser = Asked(Silent(), PATH, CONFIG)
    edm.build(edm.Options(augment=0.5)).terms(denoiser, batch(8))
    assert denoiser.told.shape == (8, 9)
    assert bool(denoiser.told.any())
    edm.build(edm.Options()).terms(denoiser, batch(8))
    assert denoiser.told is None


def test_the_target_is_the_augmented_image() -> None:
    """With no noise to speak of, a silent network returns what it is given: the loss sees x_0 of the same kind."""
    objective, drawn = edm.build(edm.Options(augment=1.0)), batch(64)
    loss = objective.terms(Denoiser(Silent(), PATH, CONFIG), drawn)["denoising"]
    sigma = PATH.draw_times(drawn.uniform(Stream.TIME))
    assert float(loss[sigma < 0.1].max()) < 3


def planned(**run: Any) -> dict[str, Any]:
    method = {"objective": run.pop("name", "edm"), "variants": {"one": {"preset": run.pop("preset", "paper")}}}
    values = changed("methods", {"new": {**method, "run": run}})
    values["base"] = {"network": {"name": "songunet", "channels": 8, "attention_resolutions": [], "augment": True}}
    values["datasets"]["digits"]["run"] = {}
    values["sampling"] = {"edm": {"sampler": "edm", "nfe": [35], "images": 100}}
    return Plan(parse_experiment(values)).instances[0].run.model_dump(mode="json")


def test_the_preset_is_the_published_recipe() -> None:
    """Karras et al. (2022), Table 7 and the released command: 200 million images, 512 a step."""
    run = planned()
    training = run["training"]
    assert training["steps"] * training["batch_size"] == pytest.approx(200e6, rel=1e-5)
    assert training["warmup_steps"] * training["batch_size"] == pytest.approx(10e6, rel=1e-4)
    assert (training["lr"], training["grad_clip"], training["flip"]) == (1e-3, None, False)
    assert (training["ema_halflife_images"], training["ema_warmup"]) == (500_000, True)
    assert (run["network"]["dropout"], run["objective"]["augment"], run["objective"]["norm"]) == (0.13, 0.12, "sum")
    assert (run["diffusion"]["path"], run["diffusion"]["sigma_data"]) == ("edm", 0.5)
    assert (run["diffusion"]["log_sigma_mean"], run["diffusion"]["log_sigma_std"]) == (-1.2, 1.2)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"diffusion": {"path": "vp", "prediction": "eps"}}, "objective edm needs diffusion.path edm"),
        ({"network": {"augment": False}}, "the network is not told of it"),
        ({"training": {"flip": True}}, "training.flip does not tell it"),
        ({"name": "pfgmpp", "diffusion": {"path": "edm"}}, "objective pfgmpp needs diffusion.path pfgm"),
        ({"name": "pfgmpp", "network": {"augment": False}}, "the network is not told of it"),
    ],
)
def test_what_does_not_fit_is_refused(run: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=rf"^methods.new.variants.one: .*{sentence}.*\.$"):
        planned(**copy.deepcopy(run))


def test_presets_of_pfgmpp_differ_from_edm_in_its_noise_alone() -> None:
    control, paper, released = planned(), planned(name="pfgmpp"), planned(name="pfgmpp", preset="released")
    assert paper["diffusion"] == {**control["diffusion"], "path": "pfgm"}
    assert (paper["training"], paper["network"]) == (control["training"], control["network"])
    assert paper["objective"] == {**control["objective"], "name": "pfgmpp", "beta_clip": 0.0}
    assert released == {**paper, "objective": {**paper["objective"], "beta_clip": 1e-3}}


def test_runs_are_validated_apart_from_plans() -> None:
    assert Run(diffusion=CONFIG, objective="edm", network={"name": "songunet"}).objective["augment"] == 0


@pytest.mark.parametrize("name", ["edm", "pfgmpp"])
def test_the_docs_page_names_every_option_and_preset(name: str) -> None:
    module = registry.find("objectives", name)
    page = Path(DOCS / f"{name}.md").read_text()
    known = set(module.PRESETS) | set(module.Options.model_fields)
    assert [word for word in known if f"`{word}`" not in page] == []
