"""From an experiment to instances and files: layering, identity, refusals."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.models import parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.exits import BadConfig, TryAgain

MINIMAL: dict[str, Any] = {
    "experiment": "tiny",
    "base": {
        "diffusion": {"timesteps": 100},
        "network": {"channels": 32, "channel_mult": [1, 2], "attention_resolutions": []},
    },
    "datasets": {"digits": {"recipe": "digits", "run": {"training": {"batch_size": 64}}}},
    "methods": {"ddpm": {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}}},
    "sampling": {"ancestral": {"sampler": "ancestral", "nfe": [20, 100], "images": 100}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(MINIMAL)
    at = values
    *parents, last = path.split("/")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return values


def plan(values: dict[str, Any] = MINIMAL, source: str = "") -> Plan:
    return Plan(parse_experiment(values), source)


def stages(values: dict[str, Any]) -> dict[str, Any]:
    return dict(plan(values).stage_configs())


def test_layers_defaults_preset_base_dataset_method_variant() -> None:
    run = plan().instances[0].run
    assert run.training.steps == 800_000  # default
    assert run.training.ema_decay == 0.9999  # preset
    assert run.diffusion.timesteps == 100  # base
    assert run.training.batch_size == 64  # dataset
    over = changed("methods/ddpm/variants/paper/run", {"training": {"batch_size": 32, "ema_decay": 0.5}})
    training = plan(over).instances[0].run.training
    assert (training.batch_size, training.ema_decay) == (32, 0.5)


def test_an_instance_for_each_dataset_variant_and_seed() -> None:
    values = changed("seeds", [3, 1])
    values["methods"]["ddpm"]["variants"]["wide"] = {"run": {"network": {"channels": 64}}, "seeds": [7]}
    assert [i.path for i in plan(values).instances] == [
        "digits/ddpm/paper/s3",
        "digits/ddpm/paper/s1",
        "digits/ddpm/wide/s7",
    ]


@pytest.mark.parametrize(
    ("path", "value", "touched"),
    [
        ("methods/ddpm/variants/paper/run", {"training": {"lr": 1e-3}}, {"train"}),
        ("errors", {"chains": 64}, {"errors", "bandwidths"}),  # which says early where images are too few
        ("errors", {"permutations": 64}, {"errors"}),
        ("scores", {"samples": 5}, {"scores", "controls"}),
        ("sampling/ancestral/images", 12, {"sample"}),
        ("sampling/ancestral/nfe", [10], {"sample", "errors"}),
        ("datasets/digits/holdout", 100, {"data"}),
        ("title", "another title", set()),
        ("tracking", {"enabled": False}, set()),
    ],
)
def test_a_value_touches_only_the_stages_that_use_it(path: str, value: Any, touched: set[str]) -> None:
    before, after = stages(MINIMAL), stages(changed(path, value))
    assert {name.rsplit("/", 1)[-1] for name in before if before[name] != after[name]} == touched


def test_runtime_is_no_part_of_any_identity() -> None:
    before, after = stages(MINIMAL), stages(changed("runtime", {"checkpoint_minutes": 1, "sample_batch": 3}))
    assert {k: v["config"] for k, v in before.items()} == {k: v["config"] for k, v in after.items()}


def test_files_are_written_only_where_they_differ(tmp_path: Path) -> None:
    plan().write()
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert len(files) > 8
    plan().write()
    assert {p: p.stat().st_mtime_ns for p in files} == files
    plan(changed("errors", {"permutations": 64})).write()
    rewritten = {p.parent.name for p in files if p.stat().st_mtime_ns != files[p]}
    assert rewritten == {"errors", "config"}


def test_a_second_configuration_under_the_same_name_is_refused(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("")
    plan(source="one.yaml").write()
    plan(source="one.yaml").write()
    with pytest.raises(BadConfig, match=r"'tiny' belongs to one\.yaml"):
        plan(source="two.yaml").write()
    (tmp_path / "one.yaml").unlink()
    plan(source="two.yaml").write()


def test_a_dry_run_claims_no_name(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("")
    plan(source="one.yaml").write(claim=False)
    plan(source="two.yaml").write()
    with pytest.raises(BadConfig, match=r"'tiny' belongs to two\.yaml"):
        plan(source="one.yaml").write(claim=False)


def test_nothing_changes_under_a_running_workflow(tmp_path: Path) -> None:
    plan().write()
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").write_text("")
    plan().write()  # nothing differs
    with pytest.raises(TryAgain, match="another Snakemake works in this folder"):
        plan(changed("errors", {"chains": 64})).write()
    assert '"chains": 1000' in Path("results/tiny/digits/ddpm/paper/s0/ancestral/errors/config.json").read_text()


def test_the_summary_names_every_instance() -> None:
    plan().write()
    summary = json.loads(Path("results/tiny/config/experiment.json").read_text())
    assert [i["path"] for i in summary["instances"]] == ["digits/ddpm/paper/s0"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("sampling/ancestral/nfes", [5], "unknown key 'sampling.ancestral.nfes'; did you mean 'nfe'"),
        ("base/training", {"batchsize": 5}, "unknown key '.*training.batchsize'; did you mean 'batch_size'"),
        ("base/traning", {}, "unknown key '.*traning'; did you mean 'training'"),
        ("methods/ddpm/objective", "dppm", "no 'dppm' in objectives; did you mean 'ddpm'"),
        ("methods/ddpm/variants/paper/preset", "papre", "no preset 'papre'; did you mean 'paper'"),
        ("methods/ddpm/variants/paper/control", "ddpm/main", "no control 'ddpm/main'"),
        ("methods/ddpm/variants/paper/datasets", ["digit"], "no dataset 'digit'; did you mean 'digits'"),
        (
            "datasets/digits/recipe",
            "digit",
            r"^datasets.digits: there is no 'digit' in data/recipes; did you mean 'digits'\?$",
        ),
        ("datasets/digits/recipe", {"name": "digits", "path": "x"}, "unknown key 'recipe.path'; there are none"),
        ("sampling/ancestral/sampler", {"name": "ancestral", "varianc": 1}, "did you mean 'variance'"),
        ("base/training", {"lr": -1}, r"training.lr: input should be greater than 0 \(it is -1\)"),
        ("base/diffusion", {"schedule": "liner"}, "'linear', 'cosine' or 'sigmoid'"),
        ("sampling/ancestral/nfe", [101], "nfe 101 is more than the 100 steps"),
        ("sampling/ancestral/nfe", [5, 5], "different positive numbers"),
        ("base/training", {"mmd_group": 48}, "mmd_group 48 does not divide batch_size 64"),
        ("seeds", [1, 1], "seeds must be different"),
        ("methods/ddpm/variants/paper/seeds", [-1], "seeds must be different"),
        ("errors", {"kernels": ["laplace", "laplace"]}, "a name stands twice"),
        ("errors", {"times": -3}, "errors.times"),
        ("errors", {"chains": 1798}, "1798 forward samples .* more than the 1797 training images of digits"),
        ("base/network", {"channels": 9}, "multiple of 4"),
        ("base/training", {"adam_betas": [1.5, 2]}, r"must lie in \[0, 1\)"),
        ("checks", [{"metric": "fd", "nfe": 20}], "at_most or at_least"),
        ("checks", [{"metric": "fd", "nfe": 21, "at_most": 1}], "nfe 21 is not sampled"),
        ("tracking", {"uri": "foo"}, "tracking.uri"),
        ("datasets/digits/holdout", 101, r"images is 100, but 101 .* set images to 101 or more, or scores.samples to"),
        ("sampling/ancestral/sampler", 5, "sampler: give a name"),
        ("datasets/digits", None, "datasets.digits"),
        ("base/training", {"lr": True}, r"variants.paper.training.lr: true and false are no values .* \(it is True\)"),
        ("base/training", {"adam_betas": [False, 0.9]}, "training.adam_betas: true and false are no values"),
        ("sampling/ancestral/nfe", [True], "sampling.ancestral.nfe: true and false are no values"),
        ("errors", {"times": True}, "errors.times: true and false are no values of this key"),
        ("experiment", "store", "cannot be the name of the experiment"),
        ("experiment", "a/b", "experiment: string should match pattern"),
    ],
)
def test_mistakes_are_one_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        plan(changed(path, value))


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        ({"lamda_reg": 1}, "unknown key 'objective.lamda_reg'; did you mean 'lambda_reg'?"),
        (
            {"bootstrap_length": True},
            "objective.bootstrap_length: true and false are no values of this key (it is True).",
        ),
        ({"bandwidth": True}, "objective.bandwidth: true and false are no values of this key (it is True)."),
        ({"rho": -1}, "objective.rho: input should be greater than or equal to 0 (it is -1)."),
    ],
)
def test_a_mistake_in_an_objective_names_its_variant(objective: dict[str, Any], sentence: str) -> None:
    values = changed("methods/reg", {"objective": "ddpm-reg", "variants": {"wide": {"run": {"objective": objective}}}})
    with pytest.raises(BadConfig) as caught:
        plan(values)
    assert str(caught.value) == f"methods.reg.variants.wide: {sentence}"


def test_a_mistake_in_a_recipe_or_sampler_names_where_it_stands() -> None:
    with pytest.raises(BadConfig, match=r"^datasets\.digits: unknown key 'recipe\.siz'"):
        plan(changed("datasets/digits/recipe", {"name": "digits", "siz": 3}))
    with pytest.raises(
        BadConfig, match=r"^sampling\.ancestral: unknown key 'sampler\.varianc'; did you mean 'variance'\?$"
    ):
        plan(changed("sampling/ancestral/sampler", {"name": "ancestral", "varianc": 1}))


def test_a_missing_key_is_named() -> None:
    values = {k: v for k, v in MINIMAL.items() if k != "methods"}
    with pytest.raises(BadConfig, match="the key 'methods' is missing"):
        plan(values)


def test_a_correction_that_does_not_suit_the_steps_is_refused() -> None:
    wrong = [{"name": "epsilon-scaling", "b": 1.0, "k": -0.1}]
    with pytest.raises(BadConfig, match=r"lambda of epsilon-scaling is -0\.9 at step 0 of 20"):
        plan(changed("sampling/ancestral/corrections", wrong))
    with pytest.raises(BadConfig, match="did you mean 'epsilon-scaling'"):
        plan(changed("sampling/ancestral/corrections", [{"name": "epsilon-scalin"}]))


def test_chains_may_be_more_than_images_are_sampled_or_known() -> None:
    """Chains are simulated apart from the samples; only forward samples are images of the dataset."""
    plan(changed("errors", {"chains": 5000, "forward": 1797}))
    folder = {"recipe": {"name": "image-folder", "path": "nowhere", "resolution": 32}}
    plan(changed("datasets", {"mine": folder}))


def test_sets_of_samples_need_a_size_where_nothing_is_held_out() -> None:
    values = changed("scores", {"sets": 2})
    with pytest.raises(BadConfig, match="2 sets of as many images as are held out of digits, which are none; give"):
        plan(values)
    values["scores"]["samples"] = 50
    assert plan(values).scored("digits", plan(values).experiment.sampling["ancestral"]) == 50


def test_held_out_images_are_no_forward_samples() -> None:
    values = changed("datasets/digits/holdout", 798)
    values["sampling"]["ancestral"]["images"] = 798
    with pytest.raises(BadConfig, match=r"1000 forward samples .* more than the 999 training images of digits"):
        plan(values)


def test_a_learned_variance_is_sampled_only_where_one_is_learned() -> None:
    values = changed("sampling/ancestral/sampler", {"name": "ancestral", "variance": "learned"})
    with pytest.raises(BadConfig, match="cannot sample ddpm/paper: it has learned no variance"):
        plan(values)
    values["methods"] = {"adm": {"objective": "adm", "variants": {"paper": {"preset": "paper"}}}}
    assert plan(values).instances[0].run.diffusion.learned_variance


def sampled(on: str = "vp", **values: Any) -> dict[str, Any]:
    """The minimal experiment with one other sampling, on a vp path (T = 100) or on that of EDM."""
    given = changed("sampling/ancestral", {"sampler": "ddim", "nfe": [10], "images": 100, **values})
    if on == "edm":
        run = {"diffusion": {}, "objective": {"augment": 0}}
        given["methods"] = {"edm": {"objective": "edm", "variants": {"paper": {"preset": "paper", "run": run}}}}
        given["base"]["diffusion"] = {}
    return given


@pytest.mark.parametrize("spacing", ["uniform", "leading", "trailing", "quadratic"])
def test_every_spacing_is_one_of_a_path_with_discrete_steps(spacing: str) -> None:
    plan(sampled(spacing=spacing, nfe=[3, 9]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (sampled(nfe=[101]), "nfe 101 is more than the 100 steps of ddpm/paper."),
        (
            sampled(spacing="quadratic"),
            "spacing quadratic visits a t twice with nfe 10 on a path of 100 steps: take at",
        ),
        (sampled(spacing="quadratic", nfe=[1]), "spacing quadratic with nfe 1 would call the network at t = 1 alone"),
        (sampled("edm", spacing="leading"), "spacing leading is for diffusion.path vp; path edm has its own, uniform."),
        (sampled("edm", spacing="quadratic"), "spacing quadratic is for diffusion.path vp; path edm has its own"),
        (
            sampled("edm", corrections=[{"name": "time-shift", "window": 2, "cutoff": 0}]),
            "time-shift is for diffusion.path vp (it is edm).",
        ),
        (
            sampled(corrections=[{"name": "time-shift", "window": 100, "cutoff": 0}]),
            "a time-shift window of 100 is wider than the path, which has 100 steps.",
        ),
        (
            sampled("edm", corrections=[{"name": "variance-downscaling"}]),
            "variance-downscaling is for diffusion.path vp (it is edm).",
        ),
        (
            sampled(corrections=[{"name": "epsilon-scaling", "b": 0.0}]),
            "lambda of epsilon-scaling is 0 at step 0 of 10, not above 0.",
        ),
        (
            sampled(sampler="analytic-dpm", corrections=[{"name": "time-shift", "window": 2, "cutoff": 0}]),
            "analytic-dpm knows the t of the grid alone, and time-shift leaves them: take only one.",
        ),
        (
            sampled(corrections=[{"name": "variance-downscaling"}, {"name": "time-shift", "window": 2, "cutoff": 0}]),
            "variance-downscaling knows the t of the grid alone, and time-shift leaves them: take only one.",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_sampling_that_cannot_be_is_refused_before_anything_runs(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig) as refused:
        plan(values)
    assert str(refused.value).startswith("sampling.ancestral")
    assert sentence in str(refused.value)


def test_a_correction_that_needs_moments_gets_them_and_no_other_does() -> None:
    def asked(*corrections: dict[str, Any]) -> list[Any]:
        configs = plan(sampled(corrections=list(corrections))).stage_configs()
        return [config["config"]["corrections"] for _, config in configs if config["stage"] == "moments"]

    scaling, downscaling = {"name": "epsilon-scaling", "b": 1.01}, {"name": "variance-downscaling"}
    known = {**downscaling, "x0_error": {"1": 0.5}}
    assert asked(scaling) == asked(known) == []
    assert [one["name"] for one in asked(scaling, downscaling)[0]] == ["variance-downscaling"]


def test_equal_runs_are_those_of_one_dataset_seed_and_start() -> None:
    """ddpm/paper, the same under another name, the same from a start, and one with more channels; two datasets."""
    values = changed("methods/twin", {"objective": "ddpm", "variants": {"paper": {"preset": "paper"}}})
    values["methods"]["twin"]["variants"]["tuned"] = {"preset": "paper", "init_from": "ddpm/paper"}
    values["methods"]["ddpm"]["variants"]["wide"] = {"run": {"network": {"channels": 64}}}
    values["datasets"]["again"] = {**values["datasets"]["digits"], "holdout": 10}
    folder = "results/tiny/{}/{}/paper/s{}"
    assert plan({**values, "seeds": [0, 1]}).equal_runs == {
        folder.format(dataset, one, seed): [folder.format(dataset, other, seed)]
        for dataset in ("digits", "again")
        for one, other in (("ddpm", "twin"), ("twin", "ddpm"))
        for seed in (0, 1)
    }


def test_a_sampling_that_is_not_scored_has_no_scores_and_needs_few_images() -> None:
    values = changed("datasets/digits/holdout", 100)
    values["sampling"]["whole"] = {"sampler": "ancestral", "nfe": [100], "images": 8, "scored": False}
    found = plan(values)
    place = "digits/ddpm/paper/s0"
    stages_of = {name.removeprefix(f"{place}/") for name, _ in found.stage_configs() if name.startswith(place)}
    assert {name for name in stages_of if name.startswith("whole")} == {"whole/sample", "whole/errors"}
    assert found.records("scores") == [f"results/tiny/{place}/ancestral/scores/scores.parquet"]
    assert len(found.records("errors")) == len(found.manifests("sample")) == 2
    del values["sampling"]["whole"]["scored"]
    with pytest.raises(BadConfig, match="images is 8, but 100 are scored"):
        plan(values)


def test_whether_it_is_scored_is_no_part_of_what_is_drawn() -> None:
    asked = stages(changed("sampling/ancestral/scored", False))
    assert {**asked, "digits/ddpm/paper/s0/ancestral/scores": None}.keys() == stages(MINIMAL).keys()
    assert all(config == stages(MINIMAL)[name] for name, config in asked.items())
