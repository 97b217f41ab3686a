"""The page of all keys is complete and is the one on disk."""

import re

import pytest

from pipeline_lib import registry
from pipeline_lib.config import models
from pipeline_lib.config.base import Model
from pipeline_lib.config.reference import documented, page, type_of
from pipeline_lib.networks.architectures import unet
from tests.workflow.conftest import ROOT


def test_the_page_on_disk_is_the_generated_one() -> None:
    """Else: python -m pipeline_lib reference-page > docs/configuration.md."""
    assert (ROOT / "docs/configuration.md").read_text() == page()


def test_every_model_and_part_has_a_section() -> None:
    named = {m for m in vars(models).values() if isinstance(m, type) and issubclass(m, Model)} - {
        Model,
        models.Network,
        models.Autoencoder,
    }
    parts = {registry.find(kind, name).Options for kind in registry.ENTRY_POINTS for name in registry.names(kind)}
    assert {model for _, _, model in documented()} == named | parts


def test_every_key_has_a_description_and_a_row() -> None:
    keys = [(title, key, field) for title, _, model in documented() for key, field in model.model_fields.items()]
    assert [f"{title}.{key}" for title, key, field in keys if not field.description] == []
    assert len(re.findall(r"^\| `", page(), re.MULTILINE)) == len(keys)


def test_links_lead_to_sections() -> None:
    anchors = {title.lower().replace(" ", "-") for title, _, _ in documented()}
    assert set(re.findall(r"\]\(#([^)]*)\)", page())) <= anchors


@pytest.mark.parametrize(
    ("model", "key", "words"),
    [
        (unet.Options, "channels", "integer ≥ 8, multiple of 4"),
        (models.Training, "grad_clip", "number > 0 or null"),
        (models.Training, "adam_betas", "[number, number]"),
        (models.Errors, "times", "integer ≥ 2 or `every`"),
        (models.Experiment, "experiment", "name"),
        (models.Experiment, "datasets", "mapping of names to [Dataset](#dataset)"),
        (models.Experiment, "checks", "list of [Check](#check)"),
        (models.Experiment, "base", "mapping"),
    ],
)
def test_types_in_words(model: type[Model], key: str, words: str) -> None:
    assert type_of(model.model_json_schema()["properties"][key]) == words


@pytest.mark.parametrize(
    "row",
    [
        "| `steps` | integer ≥ 1 | `800000` | optimiser steps |",
        "| `experiment` | name | required | name of the experiment and of its folder in results/ |",
        "| `setting` | [Setting](#setting) | `{error: {scale: 0.97}, variance: fixed-large}` | ",
    ],
)
def test_rows(row: str) -> None:
    assert f"\n{row}" in page()


def test_places_of_a_model_are_paths_of_keys() -> None:
    about = {title: text for title, text, _ in documented()}
    assert "`methods.<name>.variants.<name>.grid.<name>`" in about["Axis"]
    assert "`base.diffusion`, `analytic.problems.<name>.diffusion`" in about["Diffusion"]
