"""A sampling that names a noisy classifier: what it depends on, and what is refused when it is planned."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_lib.config.plan import Plan
from pipeline_lib.exits import BadConfig
from tests.config.test_plan import changed, plan

GUIDED = {"name": "classifier-guidance", "scale": 0.5, "classifier": "guide/paper"}
CLASSIFIER: dict[str, Any] = {"objective": "noisy-classifier", "variants": {"paper": {"preset": "paper"}}}
DDPM = {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}}


def guided(**more: Any) -> dict[str, Any]:
    """An experiment of DDPM, a noisy classifier, and a guided sampling beside the plain one."""
    values = changed("methods/guide", CLASSIFIER)
    values["sampling"]["guided"] = {"sampler": "ancestral", "nfe": [20], "images": 100, "corrections": [GUIDED]}
    return values | more


def of(values: dict[str, Any]) -> Plan:
    return plan(values)


def test_the_classifier_is_trained_and_not_sampled() -> None:
    one = of(guided())
    assert [i.path for i in one.instances] == ["digits/ddpm/paper/s0", "digits/guide/paper/s0"]
    stages = [name for name, _ in one.stage_configs() if name.startswith("digits/guide/")]
    assert stages == ["digits/guide/paper/s0/train"]
    assert one.summary()["methods"]["guide"]["samplings"] == []


def test_a_guided_sampling_depends_on_the_classifier_of_its_seed() -> None:
    one = of(guided(seeds=[0, 3]))
    cell = {"dataset": "digits", "method": "ddpm", "variant": "paper", "seed": "3"}
    trained = "results/tiny/digits/guide/paper/s3/train/manifest.json"
    assert one.guide(SimpleNamespace(**cell, sampling="guided")) == [trained]
    assert one.guide(SimpleNamespace(**cell, sampling="ancestral")) == []


def test_the_scale_touches_the_guided_samples_alone() -> None:
    before = dict(of(guided()).stage_configs())
    values = guided()
    values["sampling"]["guided"]["corrections"] = [{**GUIDED, "scale": 1.0}]
    after = dict(of(values).stage_configs())
    assert {k for k in before if before[k] != after[k]} == {
        f"digits/ddpm/paper/s0/guided/{stage}" for stage in ("sample", "errors")
    }


def with_guidance(**changes: Any) -> dict[str, Any]:
    values = guided()
    values["sampling"]["guided"]["corrections"] = [{**GUIDED, **changes}]
    return values


def with_classifier(**changes: Any) -> dict[str, Any]:
    values = guided()
    values["methods"]["guide"] = {**CLASSIFIER, **changes}
    return values


def on_two_datasets() -> dict[str, Any]:
    values = guided()
    values["datasets"]["more"] = {"recipe": "digits"}
    values["methods"]["guide"] = {**CLASSIFIER, "variants": {"paper": {"preset": "paper", "datasets": ["more"]}}}
    return values


def without_labels(method: dict[str, Any]) -> dict[str, Any]:
    values = changed("datasets", {"towers": {"recipe": {"name": "lsun-tower64", "path": "data/lsun"}}})
    values["methods"] = {"ddpm": DDPM, "one": method}
    return values


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (with_guidance(scale=-0.5), "scale"),
        (with_guidance(classifier="guide"), "classifier"),
        (with_guidance(classifier="guide/papr"), "guide/papr is no noisy classifier .* did you mean 'guide/paper'"),
        (with_guidance(classifier="ddpm/paper"), "ddpm/paper is no noisy classifier that is trained on digits"),
        (on_two_datasets(), "guide/paper is no noisy classifier that is trained on digits with seed 0"),
        (with_classifier(run={"diffusion": {"schedule": "cosine"}}), "has learned x_t of another path"),
        (with_classifier(run={"diffusion": {"timesteps": 50}}), "has learned x_t of another path"),
        (
            with_classifier(variants={"paper": {"preset": "paper", "control": "ddpm/paper"}}),
            "a classifier has no scores, so no control",
        ),
        (without_labels(CLASSIFIER), "towers/one/paper learns labels, which towers has not"),
        (without_labels({**DDPM, "run": {"network": {"conditional": True}}}), "learns labels, which towers has not"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        of(values)


def test_who_draws_from_a_classifier_is_told_so() -> None:
    values = guided()
    values["sampling"]["ancestral"]["methods"] = ["ddpm", "guide"]
    with pytest.raises(BadConfig, match="guide is a classifier and draws no images"):
        of(values)


def test_one_sampling_is_guided_once() -> None:
    values = guided()
    values["sampling"]["guided"]["corrections"] = [GUIDED, GUIDED]
    with pytest.raises(BadConfig, match="guided once"):
        of(values)


def test_the_mean_is_that_of_an_ancestral_step() -> None:
    values = guided()
    values["sampling"]["guided"]["corrections"] = [{**GUIDED, "form": "mean"}]
    of(values)
    values["sampling"]["guided"]["sampler"] = {"name": "ddim"}
    with pytest.raises(BadConfig, match="guidance of the mean is for the sampler ancestral: take form eps"):
        of(values)
