"""Lengths of averages, and which samplings differ in the average alone."""

from typing import Any

import pytest

from pipeline_lib.config import averages
from pipeline_lib.config.models import Training
from tests.config.test_plan import plan
from tests.config.test_progress import DDIM, kept


def test_half_lives_are_those_of_the_last_update() -> None:
    """0.5^(1/100) halves in 100 updates of 4 steps of 8 images; a half-life is what it is; 0: no average."""
    kept = {"short": {"halflife_images": 500}, "raw": {"decay": 0}}
    config = Training(batch_size=8, ema_every=4, ema_decay=0.5**0.01, ema_warmup=False, averages=kept)
    assert averages.halflives(config) == pytest.approx({"ema": 3200, "short": 500, "raw": 0})


def test_a_warm_up_holds_them_down() -> None:
    """After 91 updates the decay is at most 92 / 101, and a half-life at most 5 % of the images before the last."""
    kept = {"long": {"decay": 0.9999}, "images": {"halflife_images": 5000}}
    found = averages.halflives(Training(steps=91, batch_size=8, ema_decay=0.999, averages=kept))
    assert found["ema"] == found["long"] == pytest.approx(59.42, rel=1e-3)  # 8 ln 2 / ln(101 / 92)
    assert found["images"] == pytest.approx(0.05 * 8 * 90)


def drawn(**other: Any) -> dict[str, Any]:
    values = kept()
    values["sampling"] = {
        "main": {"sampler": "ancestral", "nfe": [10], "images": 100},
        "mean": {
            "sampler": "ancestral",
            "nfe": [10],
            "images": 100,
            "methods": ["ddpm"],
            "control": "main",
            "grid": {"of": {"key": "weights", "values": ["short"]}},
            **other,
        },
        "ddim": DDIM,
    }
    return values


def test_samplings_that_differ_in_the_average_alone_are_one_axis() -> None:
    found = plan(drawn())
    assert found.averages["alike"] == {"main": "main", "mean-ofshort": "main"}
    assert list(found.averages["halflives"]) == ["digits/ddpm/paper/s0"]  # the other keeps no second average
    assert "averages" in found.tables
    assert "averages" in found.figures


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"images": 101}, {"clip_x0": False}], ids=lambda other: next(iter(other))
)
def test_what_differs_in_more_is_not(other: dict[str, Any]) -> None:
    found = plan(drawn(**other))
    assert found.averages == {}
    assert "averages" not in {*found.tables, *found.figures}
