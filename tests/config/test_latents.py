"""A dataset with an autoencoder: its stages, what reads them, and what latents cannot take."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.config.plan import Plan
from pipeline_lib.estimate import datasets, jobs, text
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import MINIMAL, plan

TINY = {"name": "kl", "channels": 8, "latent_channels": 3}
DIGITS = SimpleNamespace(dataset="digits")


def latent(**changes: Any) -> dict[str, Any]:
    """The minimal experiment on latents of 4x4."""
    values = copy.deepcopy(MINIMAL)
    values["datasets"]["digits"]["autoencoder"] = TINY
    values["base"]["training"] = {"flip": False}
    return values | changes


def stages(one: Plan) -> dict[str, Any]:
    return dict(one.stage_configs())


def test_only_a_dataset_with_an_autoencoder_has_the_two_stages() -> None:
    values = latent()
    values["datasets"]["plain"] = {"recipe": "digits", "run": {"training": {"batch_size": 64}}}
    found = stages(plan(values))
    assert found["digits/autoencoder"]["config"]["latent_channels"] == 3
    assert found["digits/latents"]["config"] == {}
    assert not {"plain/autoencoder", "plain/latents"} & set(found)


def test_a_dataset_without_one_stays_as_it_is() -> None:
    """The stage configurations are those of a plan that knows no autoencoders."""
    values = copy.deepcopy(MINIMAL)
    values["datasets"]["digits"]["autoencoder"] = None
    assert stages(plan(values)) == stages(plan())
    assert stages(plan())["digits/ddpm/paper/s0/ancestral/sample"]["config"]["clip_x0"] is True
    assert (plan().trained_on(DIGITS), plan().autoencoder(DIGITS)) == ("results/tiny/digits/data/manifest.json", [])


def test_diffusion_reads_latents() -> None:
    one = plan(latent())
    assert one.trained_on(DIGITS) == "results/tiny/digits/latents/manifest.json"
    assert one.autoencoder(DIGITS) == ["results/tiny/digits/autoencoder/manifest.json"]
    both = one.given("data", "autoencoder")(DIGITS)
    assert both == {"data": one.trained_on(DIGITS), "autoencoder": one.autoencoder(DIGITS)}
    assert {f"results/tiny/digits/{s}/manifest.json" for s in ("autoencoder", "latents")} <= set(
        one.made_once("autoencoder", "latents")
    )


def test_latents_are_not_clipped() -> None:
    found = stages(plan(latent()))
    assert found["digits/ddpm/paper/s0/ancestral/sample"]["config"]["clip_x0"] is False
    assert found["digits/ddpm/paper/s0/ancestral/errors"]["config"]["sampling"]["clip_x0"] is False


def test_clipping_and_mirroring_latents_is_refused() -> None:
    values = latent()
    values["sampling"]["ancestral"]["clip_x0"] = True
    with pytest.raises(BadConfig, match=r"sampling\.ancestral: clip_x0 is for pixels, and digits is trained on"):
        plan(values)
    with pytest.raises(BadConfig, match=r"digits/ddpm/paper: training\.flip would mirror latents"):
        plan(latent(base={**MINIMAL["base"], "training": {"flip": True}}))


ON_EDM = {"diffusion": {"path": "edm", "prediction": "edm"}, "network": {"name": "songunet", "augment": True}}
OF_PIXELS: dict[str, tuple[dict[str, Any], str]] = {
    "edm": (ON_EDM | {"objective": {"augment": 0.1}}, "objective.augment would turn and stretch latents"),
    "adm": ({"diffusion": {"learned_variance": True}}, "objective adm has a likelihood of pixels with 256 levels"),
    "adm-ip": ({"diffusion": {"learned_variance": True}}, "objective adm-ip has a likelihood of pixels"),
}


@pytest.mark.parametrize("name", OF_PIXELS)
def test_what_is_for_pixels_is_refused(name: str) -> None:
    run, sentence = OF_PIXELS[name]
    values = latent()
    values["methods"] = {"new": {"objective": name, "run": run, "variants": {"one": {}}}}
    values["sampling"]["ancestral"]["sampler"] = {"name": "edm"} if name == "edm" else {"name": "ancestral"}
    values["sampling"]["ancestral"]["nfe"] = [9]
    values["comparisons"] = {}
    with pytest.raises(BadConfig, match=f"^digits/new/one: {sentence}"):
        plan(values)
    del values["datasets"]["digits"]["autoencoder"]
    plan(values)


def test_a_misspelt_option_is_named() -> None:
    values = latent()
    values["datasets"]["digits"]["autoencoder"] = {"name": "vq", "code": 3, "codess": 3}
    with pytest.raises(BadConfig, match="codess"):
        plan(values)


def test_the_plan_counts_them() -> None:
    """Latents of 3x4x4 float32; the chains are latents, the samples pixels."""
    one = plan(latent())
    (found,) = datasets(one)
    assert (jobs(one)["autoencoder"], jobs(one)["latents"]) == (1, 1)
    assert found.samples == 2 * 100 * 64
    assert found.chains == 2 * 1000 * 20 * 3 * 4 * 4 * 4
    assert f"latents (3x4x4, {1797 * 3 * 16 * 4 / 1000:.0f} kB)" in text(one)


def test_a_factor_that_does_not_fit_is_named_before_anything_runs() -> None:
    values = latent()
    values["datasets"]["digits"]["autoencoder"] = {**TINY, "channel_mult": [1, 1, 1, 1, 1]}
    with pytest.raises(BadConfig, match="f = 16, which does not divide 8x8"):
        datasets(plan(values))
