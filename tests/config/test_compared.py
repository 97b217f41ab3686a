"""Grids become variants; comparisons, sweeps and published rows are checked when the experiment is read."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.models import Variant, parse_experiment
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.exits import BadConfig

LENGTHS = {"L": {"key": "objective.bootstrap_length", "values": [1, 5]}}
BOTH = {
    "lambda": {"key": "objective.lambda_reg", "values": [0.1, 0.2]},
    "rho": {"key": "objective.rho", "values": [0, 3e-3]},
}
TABLE = {"title": "Methods", "rows": ["ddpm/paper", "ddpm-reg/sweep"]}
FIG4 = {"title": "Length", "rows": ["ddpm-reg/sweep"], "x": "objective.bootstrap_length"}
HEAT = {"title": "Weights", "rows": ["ddpm-reg/grid"], "x": "objective.lambda_reg", "y": "objective.rho"}
VALUES: dict[str, Any] = {
    "experiment": "tiny",
    "seeds": [0, 1],
    "base": {"diffusion": {"timesteps": 100}, "training": {"batch_size": 128}},
    "datasets": {"digits": {"recipe": "digits"}},
    "methods": {
        "ddpm": {"objective": "ddpm", "variants": {"paper": {"preset": "paper", "published": "li2024/table1/ddpm"}}},
        "ddpm-reg": {
            "objective": "ddpm-reg",
            "variants": {
                "paper": {"preset": "paper", "control": "ddpm/paper", "published": "li2024/table1/proposed"},
                "sweep": {
                    "preset": "paper",
                    "control": "ddpm/paper",
                    "seeds": [1],
                    "grid": LENGTHS,
                    "run": {"objective": {"rho": 0.001}, "training": {"lr": 1e-3}},
                },
                "grid": {"preset": "paper", "control": "ddpm/paper", "grid": BOTH},
            },
        },
    },
    "sampling": {"ancestral": {"sampler": "ancestral", "nfe": [20], "images": 100}},
    "comparisons": {"table1": TABLE},
    "sweeps": {"fig4": FIG4, "weights": HEAT},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(VALUES)
    at = values
    *parents, last = path.split("/")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return values


def plan(values: dict[str, Any] = VALUES) -> Plan:
    return Plan(parse_experiment(values))


def test_a_grid_is_a_variant_for_every_combination() -> None:
    runs = {i.variant: i.run for i in plan().instances if i.method == "ddpm-reg" and i.seed == 1}
    assert list(runs) == [
        "paper",
        "sweep-L1",
        "sweep-L5",
        "grid-lambda0.1-rho0",
        "grid-lambda0.1-rho0.003",
        "grid-lambda0.2-rho0",
        "grid-lambda0.2-rho0.003",
    ]
    assert [runs[f"sweep-L{n}"].objective["bootstrap_length"] for n in (1, 5)] == [1, 5]
    corner = runs["grid-lambda0.1-rho0.003"].objective
    assert (corner["lambda_reg"], corner["rho"]) == (0.1, 0.003)


def test_a_point_inherits_the_rest_of_its_variant() -> None:
    made = plan()
    point = made.experiment.methods["ddpm-reg"].variants["sweep-L5"]
    assert (point.preset, point.control, point.seeds, point.published) == ("paper", "ddpm/paper", [1], None)
    assert (point.family, point.grid) == ("sweep", {})
    run = next(i.run for i in made.instances if i.variant == "sweep-L5")
    assert (run.objective["rho"], run.training.lr) == (0.001, 1e-3)
    assert {i.seed for i in made.instances if i.variant == "sweep-L5"} == {1}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1e-5, 0.5], ["1e-05", "0.5"]),
        ([1e9, 1e20], ["1000000000", "1e20"]),
    ],
)
def test_names_of_numbers_are_readable(values: list[Any], names: list[str]) -> None:
    axes = {"s": {"key": "objective.rho", "values": values}}
    experiment = parse_experiment(changed("methods/ddpm-reg/variants/other", {"grid": axes}))
    assert [f"other-s{n}" in experiment.methods["ddpm-reg"].variants for n in names] == [True] * len(names)


def test_words_and_truth_values_too() -> None:
    axes = {
        "kernel": {"key": "objective.kernel", "values": ["laplace", "gaussian"]},
        "warm": {"key": "objective.warm_start", "values": [True, False]},
    }
    experiment = parse_experiment(changed("methods/ddpm-reg/variants/other", {"grid": axes}))
    assert "other-kernelgaussian-warmfalse" in experiment.methods["ddpm-reg"].variants


def test_rows_of_a_grid_are_its_points() -> None:
    summary = plan().summary()
    assert summary["comparisons"]["table1"]["rows"] == [
        ["ddpm", "paper"],
        ["ddpm-reg", "sweep-L1"],
        ["ddpm-reg", "sweep-L5"],
    ]
    twice = changed("comparisons/table1/rows", ["ddpm-reg/sweep-L5", "ddpm-reg/sweep"])
    rows = plan(twice).summary()["comparisons"]["table1"]["rows"]
    assert rows == [["ddpm-reg", "sweep-L5"], ["ddpm-reg", "sweep-L1"]]


def test_points_hold_the_resolved_values() -> None:
    points = plan().summary()["sweeps"]["fig4"]["points"]
    line = {"dataset": "digits", "method": "ddpm-reg", "line": "ddpm-reg", "y": None}
    assert points == [{**line, "variant": f"sweep-L{n}", "x": n} for n in (1, 5)]
    heat = plan().summary()["sweeps"]["weights"]["points"]
    assert [(p["x"], p["y"]) for p in heat] == [(0.1, 0), (0.1, 0.003), (0.2, 0), (0.2, 0.003)]


def test_a_grid_and_single_variants_of_a_method_are_one_line() -> None:
    values = changed("methods/ddpm-reg/variants/L7", {"preset": "paper", "run": {"objective": {"bootstrap_length": 7}}})
    values["sweeps"]["fig4"]["rows"] += ["ddpm-reg/L7"]
    points = plan(values).summary()["sweeps"]["fig4"]["points"]
    assert [(p["line"], p["x"]) for p in points] == [("ddpm-reg", 1), ("ddpm-reg", 5), ("ddpm-reg", 7)]


def test_several_grids_of_a_method_are_a_line_each() -> None:
    cold = {"preset": "paper", "grid": LENGTHS, "run": {"objective": {"warm_start": False}}}
    values = changed("methods/ddpm-reg/variants/cold", cold)
    values["sweeps"]["fig4"]["rows"] += ["ddpm-reg/cold"]
    points = plan(values).summary()["sweeps"]["fig4"]["points"]
    assert [p["line"] for p in points] == ["ddpm-reg/sweep"] * 2 + ["ddpm-reg/cold"] * 2


def test_values_of_a_dataset_count() -> None:
    values = changed("datasets/other", {"recipe": "digits", "run": {"training": {"lr": 0.5}}})
    values["sweeps"] = {"one": {"title": "", "rows": ["ddpm-reg/paper"], "x": "training.lr"}}
    points = plan(values).summary()["sweeps"]["one"]["points"]
    assert [(p["dataset"], p["x"], p["line"]) for p in points] == [
        ("digits", 2e-4, "ddpm-reg"),
        ("other", 0.5, "ddpm-reg"),
    ]


def test_the_workflow_knows_the_files() -> None:
    made = plan()
    assert {"table1", "fig4", "weights"} <= set(made.tables)
    assert {"fig4", "weights"} <= set(made.figures)
    assert "table1" not in made.figures
    assert r"sweep-L5" in made.pattern("variant")
    json.dumps(made.summary())


def test_the_summary_names_published_rows_and_recipes() -> None:
    summary = plan().summary()
    assert summary["methods"]["ddpm"]["variants"]["paper"]["published"] == "li2024/table1/ddpm"
    assert summary["recipes"] == {"digits": "digits"}


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; from pipeline_lib.config.models import parse_experiment;"
        "from pipeline_lib.config.plan import Plan; Plan(parse_experiment(json.loads(sys.argv[1]))).summary();"
        "sys.exit(str({'torch', 'pandas', 'scipy', 'pyarrow'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(VALUES)], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("ddpm/variants/paper/published", "li2024/table1/dpm", "no published row .*did you mean 'li2024/table1/ddpm'"),
        ("ddpm-reg/variants/sweep/published", "li2024/table1/ddpm", "a variant with a grid has no published row"),
        ("ddpm-reg/variants/sweep/grid/L/values", [], r"sweep.grid.L.values: a grid needs a list .* \(it is \[\]\)"),
        ("ddpm-reg/variants/sweep/grid/L/values", [1, None], "a grid needs a list of numbers"),
        ("ddpm-reg/variants/sweep/grid/L/values", ["a b"], "a grid needs a list of numbers"),
        ("ddpm-reg/variants/sweep/grid/L/values", [1, 1.0], "a value stands twice"),
        ("ddpm-reg/variants/sweep/grid/L/values", 5, "grid.L.values: input should be a valid list"),
        ("ddpm-reg/variants/sweep/grid/L/vals", [5], "unknown key '.*vals'; did you mean 'values'"),
        ("ddpm-reg/variants/sweep/grid/L/key", "bootstrap_length", "unknown key '.*sweep-L1.bootstrap_length'; valid"),
        (
            "ddpm-reg/variants/sweep/grid/L/key",
            "objective.bootstrap_lenght",
            "unknown key 'objective.bootstrap_lenght'; did you mean 'bootstrap_length'",
        ),
        ("ddpm-reg/variants/sweep/grid/L/key", "objectiv.rho", "unknown key '.*objectiv'; did you mean 'objective'"),
        ("ddpm-reg/variants/sweep/grid/L/key", "training.lr.rate", "sweep-L1.*training.lr"),
        ("ddpm-reg/variants/sweep/grid/L/values", [101], "bootstrap_length is 101"),
        ("ddpm-reg/variants/sweep-L5", {}, "'sweep-L5' is the name of another variant"),
        ("ddpm-reg/variants/sweep-L", {"grid": {"x": LENGTHS["L"]}, "control": "ddpm/papr"}, "no control 'ddpm/papr'"),
    ],
)
def test_mistakes_in_methods(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence) as caught:
        plan(changed(f"methods/{path}", value))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("comparisons/table1/rows", ["ddpm/papr"], "table1.rows: no method/variant 'ddpm/papr'; .*'ddpm/paper'"),
        ("comparisons/table1/rows", [], "comparisons.table1.rows"),
        ("comparisons/table1/titel", "x", "did you mean 'title'"),
        ("comparisons/scores", TABLE, "comparisons.scores: another table or figure has this name"),
        ("comparisons/fig4", TABLE, "comparisons.fig4: another table or figure has this name"),
        ("sweeps/fig2", FIG4, "sweeps.fig2: another table or figure"),
        ("sweeps/fig4/rows", ["ddpm-reg/swep"], "fig4.rows: no method/variant 'ddpm-reg/swep'; .*'ddpm-reg/sweep'"),
        ("sweeps/fig4/rows", ["ddpm/paper"], "fig4.x: ddpm/paper has no key 'objective.bootstrap_length'"),
        ("sweeps/fig4/x", "objective.bootstrap", "sweep-L1 has no key .*did you mean 'bootstrap_length'"),
        ("sweeps/fig4/x", "objective.kernel", "is 'laplace'; a sweep needs numbers"),
        ("sweeps/fig4/x", "objective.warm_start", "is True; a sweep needs numbers"),
        ("sweeps/fig4/x", "objective.rho", "sweep-L1 and ddpm-reg/sweep-L5 have the same place on digits"),
        ("sweeps/weights/y", None, "have the same place on digits; leave one out, or give y"),
        ("sweeps/weights/rows", ["ddpm-reg/grid", "ddpm-reg/paper"], "ddpm-reg/paper have the same place"),
    ],
)
def test_mistakes_in_comparisons_and_sweeps(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence) as caught:
        plan(changed(path, value))
    assert len(str(caught.value)) < 300


def test_two_axes_on_one_key_are_refused() -> None:
    axis = {"key": "objective.lambda_reg", "values": [0.1, 0.2]}
    with pytest.raises(ValueError, match="two axes of the grid have one key"):
        Variant(grid={"a": axis, "b": axis})


def differences(name: str, path: str = "", value: Any = None) -> list[str]:
    made = plan(changed(path, value) if path else VALUES).summary()
    return (made["comparisons"] | made["sweeps"])[name]["differences"]


def test_what_differs_from_the_control_beside_the_method_is_said() -> None:
    """The grid `sweep` has another learning rate; of the regulariser's own keys and groups nothing is said."""
    said = ["ddpm-reg/sweep (digits): differs from its control ddpm/paper in training.lr, too."]
    assert differences("table1") == differences("fig4") == said
    assert differences("weights") == []
    assert plan().differences == said
    assert differences("table1", "methods/ddpm/run", {"training": {"lr": 1e-3}}) == []
    (groups,) = differences("weights", "methods/ddpm/run", {"training": {"mmd_group": 32}})
    assert groups == "ddpm-reg/grid (digits): differs from its control ddpm/paper in training.mmd_group, too."
    start = {"preset": "paper", "control": "ddpm/paper", "init_from": "ddpm/paper", "grid": BOTH}
    assert "in init_from, too." in differences("weights", "methods/ddpm-reg/variants/grid", start)[0]
    lengths = {"L": {"key": "training.lr", "values": [1e-4, 1e-3]}}
    values = changed("methods/ddpm-reg/variants/sweep/grid", lengths)
    values["sweeps"]["fig4"]["x"] = "training.lr"
    assert plan(values).summary()["sweeps"]["fig4"]["differences"] == []  # it is the axis


def test_points_that_differ_in_more_than_the_axes_are_said() -> None:
    other = {"L7": {"preset": "paper", "run": {"objective": {"bootstrap_length": 7}}}}
    values = changed("methods/ddpm-reg/variants", VALUES["methods"]["ddpm-reg"]["variants"] | other)
    values["sweeps"]["fig4"]["rows"].append("ddpm-reg/L7")
    along = "ddpm-reg (digits): the points differ in objective.rho, training.lr, too."
    assert along in plan(values).summary()["sweeps"]["fig4"]["differences"]
    values["sweeps"]["weights"]["rows"].append("ddpm-reg/L7")
    values["methods"]["ddpm-reg"]["variants"]["L7"]["run"]["objective"]["lambda_reg"] = 0.7
    along = "all points (digits): the points differ in objective.bootstrap_length, too."
    assert along in plan(values).summary()["sweeps"]["weights"]["differences"]


def test_the_shipped_experiments_compare_like_with_like() -> None:
    configs = Path(__file__).parents[2] / "configs"
    named = [path for path in configs.glob("*.yaml") if not path.name.startswith("base-")]
    assert {path.name: load(path).differences for path in named} == {path.name: [] for path in named}


def test_the_shipped_heat_map_varies_its_two_keys_alone() -> None:
    """All rows of the sweep have one objective but for x and y: else the map would show something else as well."""
    plan = load(Path(__file__).parents[2] / "configs/ablations-digits.yaml")
    for name, sweep in plan.experiment.sweeps.items():
        varied = {key.split(".")[1] for key in (sweep.x, sweep.y) if key}
        rows = {tuple(row) for row in plan.sweeps[name]["rows"]}
        ours = [i.run.objective for i in plan.instances if (i.method, i.variant) in rows]
        assert len({str({k: v for k, v in one.items() if k not in varied}) for one in ours}) == 1
