"""The edges of a dataset with an autoencoder, by a dry run, beside one without."""

import copy
import re
from typing import Any

import pytest

from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow
ROOT = "results/tiny"


@pytest.fixture(scope="module")
def inputs(checkout: Checkout) -> dict[str, set[str]]:
    """Inputs of every job of a dry run, by log file, without configurations."""
    values: dict[str, Any] = copy.deepcopy(TINY)
    values["methods"].pop("other")
    values["base"]["training"]["flip"] = False
    latent = {"name": "vq", "channels": 8, "latent_channels": 2}
    values["datasets"]["latent"] = {"recipe": "digits", "holdout": 80, "autoencoder": latent}
    checkout.configure(values)
    done = checkout.snakemake("-n")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = re.findall(r"input: (.*)\n(?:.*\n)??\s+output: .*\n\s+log: results/tiny/(.*)/log.txt", done.stdout)
    return {place: {i for i in listed.split(", ") if "config" not in i} for listed, place in jobs}


def of(dataset: str, *stages: str) -> set[str]:
    return {f"{ROOT}/{dataset}/{stage}/manifest.json" for stage in stages}


def test_the_autoencoder_learns_pixels_and_makes_latents(inputs: dict[str, set[str]]) -> None:
    assert inputs["latent/autoencoder"] == of("latent", "data")
    assert inputs["latent/latents"] == of("latent", "data", "autoencoder")
    assert not {"digits/autoencoder", "digits/latents"} & set(inputs)


@pytest.mark.parametrize(
    ("stage", "pixels", "latents"),
    [
        ("bandwidths", ("data",), ("latents",)),
        ("ddpm/paper/s0/train", ("data",), ("latents", "autoencoder")),
        ("ddpm/paper/s0/ancestral/sample", ("ddpm/paper/s0/train",), ("ddpm/paper/s0/train", "autoencoder")),
        (
            "ddpm/paper/s0/ancestral/errors",
            ("data", "bandwidths", "ddpm/paper/s0/train"),
            ("latents", "bandwidths", "ddpm/paper/s0/train"),
        ),
        ("classifier", ("data",), ("data",)),
        ("reference", ("data", "classifier"), ("data", "classifier")),
        ("controls", ("data", "classifier", "reference"), ("data", "classifier", "reference", "autoencoder")),
        (
            "ddpm/paper/s0/ancestral/scores",
            ("ddpm/paper/s0/ancestral/sample", "classifier", "reference"),
            ("ddpm/paper/s0/ancestral/sample", "classifier", "reference"),
        ),
    ],
)
def test_diffusion_reads_latents_and_scores_read_pixels(
    inputs: dict[str, set[str]], stage: str, pixels: tuple[str, ...], latents: tuple[str, ...]
) -> None:
    assert inputs[f"digits/{stage}"] == of("digits", *pixels)
    assert inputs[f"latent/{stage}"] == of("latent", *latents)
