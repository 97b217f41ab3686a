"""The configurations that come with the suite: all resolve without data, and say what papers state."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest

from pipeline_lib import registry
from pipeline_lib.config import progress
from pipeline_lib.config.models import CLASSIFIER, Run
from pipeline_lib.config.plan import Plan, load
from pipeline_lib.estimate import datasets, jobs
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained
from pipeline_lib.records.published import ROWS
from pipeline_lib.samplers.corrections import epsilon_scaling
from tests.workflow.conftest import ROOT

FILES = sorted([ROOT / "config.yaml", *(ROOT / "configs").glob("*.yaml")])
BASES = [path for path in FILES if path.stem.startswith("base-")]
EXPERIMENTS = [path for path in FILES if path not in BASES]
OF_ADM = ["imagenet64", "lsun64", "ffhq128"]
OF_DDPM = ["cifar10", "cifar10-jpeg", "celeba64", "imagenet32", "imagenet64", "lsun64", "ffhq128"]
FULL_SCALE = [*OF_DDPM, "adm-cifar10", "edm-cifar10", "imagenet128", "ldm-celebahq256", "ldm-ffhq256", "paper"]


@cache
def plan(name: str) -> Plan:
    return load(ROOT / "configs" / f"{name}.yaml")


def run(name: str, path: str) -> Run:
    return next(i.run for i in plan(name).instances if f"{i.dataset}/{i.method}/{i.variant}" == path)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_it_resolves_without_its_data(path: Path) -> None:
    assert list(load(path).stage_configs())
    assert not Path("data").exists()


def test_each_experiment_has_a_folder_of_its_own() -> None:
    names = [load(path).name for path in EXPERIMENTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", BASES, ids=lambda p: p.stem)
def test_a_base_is_no_experiment(path: Path) -> None:
    with pytest.raises(BadConfig, match="the key 'experiment' is missing"):
        load(path)


def test_there_is_a_configuration_for_every_dataset_of_both_papers() -> None:
    recipes = {name: {d.recipe["name"] for d in plan(name).experiment.datasets.values()} for name in OF_DDPM}
    assert recipes == {
        "cifar10": {"cifar10"},
        "cifar10-jpeg": {"image-folder"},
        "celeba64": {"celeba64-ddim"},
        "imagenet32": {"imagenet32"},
        "imagenet64": {"imagenet64"},
        "lsun64": {"lsun-tower64"},
        "ffhq128": {"ffhq128"},
    }


@pytest.mark.parametrize("name", OF_DDPM)
def test_what_all_share(name: str) -> None:
    """Two methods, or four, three seeds, T = 1000 and 50,000 samples (Ning et al., 2023 and 2024)."""
    one = plan(name)
    methods = ["ddpm", "ddpm-reg", *(["adm", "adm-ip"] if name in OF_ADM else [])]
    assert {(i.method, i.variant, i.seed) for i in one.instances} == {
        (m, "paper", s) for m in methods for s in range(3)
    }
    assert {i.run.diffusion.timesteps for i in one.instances} == {1000}
    assert one.experiment.sampling["ancestral"].images == one.experiment.scores.samples == 50_000


@pytest.mark.parametrize("name", FULL_SCALE)
def test_every_training_at_full_scale_is_scored_on_its_way(name: str) -> None:
    """But for classifiers, which draw nothing; and each in one sampling alone."""
    one = plan(name)
    scored = [i.training for i in one.instances for _ in progress.samplings(one, i)]
    assert set(scored) == {i.training for i in one.instances if not i.run.classifies}
    assert len(set(scored)) == len(scored)
    assert {tuple(i.run.training.snapshots) for i in one.instances if i.run.classifies} <= {()}


@pytest.mark.parametrize("name", FULL_SCALE)
def test_a_control_is_scored_on_its_way_in_the_same_sampling(name: str) -> None:
    one = plan(name)
    found = {i.path: progress.samplings(one, i) for i in one.instances}
    for i in one.instances:
        control = one.experiment.methods[i.method].variants[i.variant].control
        if control and found[i.path]:
            assert found[i.path] == found[f"{i.dataset}/{control}/s{i.seed}"]


def test_cifar10_is_that_of_ddpm() -> None:
    """Ho et al. (2020), Sec. 4 and App. B, as its reimplementation with the same score sets it."""
    one = run("cifar10", "cifar10/ddpm/paper")
    network, training = one.network, one.training
    assert (one.diffusion.schedule, one.diffusion.prediction) == ("linear", "eps")
    assert (network["channels"], network["channel_mult"], network["res_blocks"]) == (128, [1, 2, 2, 2], 2)
    assert (network["attention_resolutions"], network["dropout"]) == ([16], 0.1)
    assert (training.lr, training.warmup_steps, training.batch_size) == (2e-4, 5000, 128)
    assert (training.grad_clip, training.ema_decay, training.flip) == (1.0, 0.9999, True)
    assert plan("cifar10").experiment.sampling["ancestral"].sampler["variance"] == "fixed-large"


def test_celeba_has_the_network_of_ddim() -> None:
    """The repository of Song et al. (2021); its parameters are counted in tests/networks."""
    assert run("celeba64", "celeba64/ddpm/paper").network["channel_mult"] == [1, 2, 2, 2, 4]


@pytest.mark.parametrize(("name", "steps", "batch_size"), [("lsun64", 300_000, 16 * 16), ("ffhq128", 420_000, 16 * 8)])
def test_training_of_adm_in_input_perturbation(name: str, steps: int, batch_size: int) -> None:
    """Ning et al. (2023): Table 4 (steps of ADM) and the commands of the released code (devices x images, rate)."""
    training = run(name, f"{name}/ddpm/paper").training
    assert (training.steps, training.batch_size, training.lr) == (steps, batch_size, 1e-4)


SIDE_32 = {"channels": 128, "channel_mult": [1, 2, 2, 2], "attention_resolutions": [16, 8], "head_channels": 32}
SIDE_64 = {"channels": 192, "channel_mult": [1, 2, 3, 4], "attention_resolutions": [32, 16, 8], "head_channels": 64}
SIDE_128 = {**SIDE_64, "channels": 256, "channel_mult": [1, 1, 2, 3, 4]}
ADM = {
    "adm-cifar10": ("cifar10", {**SIDE_32, "dropout": 0.3, "conditional": False}, (500_000, 128, 1e-4)),
    "imagenet64": ("imagenet64", {**SIDE_64, "dropout": 0.1, "conditional": True}, (540_000, 2048, 3e-4)),
    "lsun64": ("lsun64", {**SIDE_64, "dropout": 0.1, "conditional": False}, (300_000, 256, 1e-4)),
    "ffhq128": ("ffhq128", {**SIDE_128, "dropout": 0.1, "conditional": False}, (420_000, 128, 1e-4)),
}


@pytest.mark.parametrize("method", ["adm", "adm-ip"])
@pytest.mark.parametrize("name", ADM)
def test_adm_has_the_flags_of_the_released_commands(name: str, method: str) -> None:
    """Ning et al. (2023) and, for ImageNet, Dhariwal and Nichol; parameters are counted in tests/networks."""
    dataset, flags, trained = ADM[name]
    one = run(name, f"{dataset}/{method}/paper")
    shared = {"name": "adm", "res_blocks": 3, "heads": None, "scale_shift_norm": True}
    assert one.network == {**flags, **shared}
    assert (one.training.steps, one.training.batch_size, one.training.lr) == trained
    assert (one.diffusion.schedule, one.diffusion.learned_variance) == ("cosine", True)
    assert (one.objective["time_sampling"], one.objective.get("gamma")) == (
        "loss-second-moment",
        0.1 if method == "adm-ip" else None,
    )


@pytest.mark.parametrize("name", ADM)
def test_adm_is_sampled_with_its_learned_variance_and_ddpm_with_beta(name: str) -> None:
    one = plan(name)
    learned = {i.method for i in one.instances if i.run.diffusion.learned_variance}
    assert learned == {"adm", "adm-ip"}
    alone = learned == {i.method for i in one.instances}
    expected = "learned" if alone else "learned-or-large"
    assert one.experiment.sampling["ancestral"].sampler["variance"] == expected


def test_the_released_gamma_of_cifar10_stands_beside_that_of_the_paper() -> None:
    one = plan("adm-cifar10")
    gammas = {i.variant: i.run.objective["gamma"] for i in one.instances if i.method == "adm-ip"}
    assert gammas == {"paper": 0.1, "released": 0.15}
    assert {v.control for v in one.experiment.methods["adm-ip"].variants.values()} == {"adm/paper"}


def test_network_calls_of_the_exposure_bias_papers() -> None:
    """Ning et al. (2023), Table 3: 80, 100, 300, 1000; Ning et al. (2024), ADM: 20, 50, 100."""
    for name in ("cifar10", "imagenet32", "lsun64", "ffhq128", "celeba64"):
        assert {80, 100, 300, 1000} <= set(plan(name).experiment.sampling["ancestral"].nfe)
    for name in ("cifar10", "lsun64", "ffhq128", "imagenet64"):
        assert {20, 50, 100} <= set(plan(name).experiment.sampling["ancestral"].nfe)
    assert run("imagenet64", "imagenet64/ddpm/paper").network["conditional"]


FAMILIES = ["adm", "edm", "pfgmpp", "ddim", "ldm"]  # of Ning et al. (2024)
OF_LI = ["cifar10", "imagenet32", "celeba64"]


def test_the_paper_has_its_datasets_tables_and_kernels() -> None:
    """Li and van der Schaar (2024): three datasets, rows of Tables 1 and 2, three kernels, one of them Laplace."""
    one = plan("paper")
    assert list(one.experiment.datasets)[:3] == OF_LI
    assert list(one.comparisons) == ["table1", "table2", *(f"{m}-scaled" for m in FAMILIES), "cross"]
    rows = {tuple(row) for name in ("table1", "table2") for row in one.comparisons[name]["rows"]}
    assert {i.dataset for i in one.instances if (i.method, i.variant) in rows} == set(OF_LI)
    assert len(one.experiment.errors.kernels) == 3
    assert "laplace" in one.experiment.errors.kernels
    assert len([v for _, v in one.comparisons["table2"]["rows"] if v.startswith("cold")]) == 2


def test_the_paper_has_every_row_of_its_table1_with_its_control() -> None:
    """Li and van der Schaar (2024), Table 1, on three datasets: five rows, and the control of the copied ADM-IP."""
    one = plan("paper")
    methods = one.experiment.methods.items()
    variants = {f"{m}/{v}": about for m, method in methods for v, about in method.variants.items()}
    found: dict[str, set[tuple[str, str | None]]] = {}
    for i in one.instances:
        about = variants[f"{i.method}/{i.variant}"]
        if [i.method, i.variant] in one.comparisons["table1"]["rows"] and about.published and i.variant != "released":
            found.setdefault(about.published.removeprefix("li2024/table1/"), set()).add((i.dataset, about.control))
    all_three = {(d, "ddpm/paper") for d in OF_LI}
    assert found.pop("ddpm") == {(d, None) for d in OF_LI}
    assert found.pop("adm-ip") == {(d, f"adm/{d}") for d in OF_LI}
    assert found.pop("ning2023/table3/adm") == {(d, None) for d in OF_LI}
    assert found == dict.fromkeys(("consistent-dm", "fp-diffusion", "proposed"), all_three)
    assert one.differences == []


@pytest.mark.parametrize(
    ("dataset", "size", "flags", "trained_so"),
    [
        ("cifar10", 57.1, {"attention_resolutions": [16, 8], "head_channels": 32, "dropout": 0.3}, (500_000, 128)),
        ("imagenet32", 52.9, {"attention_resolutions": [16, 8], "head_channels": 32, "dropout": 0.3}, (4_500_000, 512)),
        (
            "celeba64",
            295.1,
            {"attention_resolutions": [32, 16, 8], "head_channels": 64, "dropout": 0.1},
            (480_000, 256),
        ),
    ],
)
def test_adm_in_the_paper_is_that_of_input_perturbation(
    dataset: str, size: float, flags: dict[str, object], trained_so: tuple[int, int]
) -> None:
    """Ning et al. (2023): parameters and Table 4 (steps of ADM), and the commands of the released code."""
    one = run("paper", f"{dataset}/adm-ip/{dataset}")
    side = 64 if dataset == "celeba64" else 32
    assert round(trained.parameters(one, (3, side, side), 1) / 1e6, 1) == size
    assert {k: one.network[k] for k in flags} == flags
    assert (one.training.steps, one.training.batch_size, one.training.lr) == (*trained_so, 1e-4)
    assert (one.diffusion.schedule, one.objective["gamma"]) == ("cosine", 0.1)


def test_every_published_row_is_named_by_a_configuration() -> None:
    named = {
        row
        for path in EXPERIMENTS
        for exp in [plan(path.stem).experiment if path.parent.name == "configs" else load(path).experiment]
        for row in [
            *(variant.published for method in exp.methods.values() for variant in method.variants.values()),
            *(row for sampling in exp.sampling.values() for row in sampling.published.values()),
        ]
    }
    assert ROWS.keys() - named == {"li2024/table2/proposed"}  # the numbers of its row in Table 1


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith("ning2024/")])
def test_every_number_of_the_exposure_bias_paper_has_its_cell(row: str) -> None:
    """With its dataset, its sampler and its number of network calls; no other cell is beside it."""
    one = plan("paper")
    cells = {
        (one.experiment.datasets[i.dataset].recipe["name"].removesuffix("-ddim"), sampling.sampler["name"], nfe)
        for i in one.instances
        for sampling in one.samplings_of(i).values()
        if sampling.published.get(f"{i.method}/{i.variant}") == row
        for nfe in sampling.nfe
    }
    assert {(p.dataset, p.protocol.sampler, p.protocol.nfe) for p in ROWS[row]} == cells


def test_the_paper_trains_nothing_by_accident_and_stays_a_graph_of_moderate_size() -> None:
    one = plan("paper")
    variants = [v for method in one.experiment.methods.values() for v in method.variants.values()]
    assert all(variant.datasets for variant in variants)
    assert sum(jobs(one).values()) < 4000


@pytest.mark.parametrize(
    ("mine", "name", "theirs"),
    [
        ("cifar10/adm-cifar10/paper", "paper", "cifar10/adm/cifar10"),
        ("cifar10/adm-cifar10/paper", "adm-cifar10", "cifar10/adm/paper"),
        ("cifar10/adm-ip-cifar10/paper", "adm-cifar10", "cifar10/adm-ip/paper"),
        ("lsun64/adm-lsun64/paper", "lsun64", "lsun64/adm/paper"),
        ("ffhq128/adm-ffhq128/paper", "ffhq128", "ffhq128/adm/paper"),
        ("imagenet64/adm-imagenet64/paper", "imagenet64", "imagenet64/adm/paper"),
        ("imagenet128/adm-imagenet128/paper", "imagenet128", "imagenet128/adm/paper"),
        ("imagenet128/guide/paper", "imagenet128", "imagenet128/guide/paper"),
        ("cifar10/edm/ddpmpp", "edm-cifar10", "cifar10/edm/ddpmpp"),
        ("cifar10/edm-conditional/ddpmpp", "edm-cifar10", "cifar10/edm/ddpmpp-conditional"),
        ("cifar10/pfgmpp/D128", "edm-cifar10", "cifar10/pfgmpp/D128"),
        ("cifar10/pfgmpp/D2048", "edm-cifar10", "cifar10/pfgmpp/D2048"),
        ("ffhq256/ldm/paper", "ldm-ffhq256", "ffhq256/ddpm/paper"),
        ("celebahq256/ldm/paper", "ldm-celebahq256", "celebahq256/ddpm/paper"),
        ("celeba64/ddpm-celeba64/paper", "celeba64", "celeba64/ddpm/paper"),
        *((f"cifar10/{m}-cifar10/paper", "paper", f"cifar10/{m}/paper") for m in ("ddpm", "ddpm-reg", "consistent-dm")),
        ("cifar10/fp-diffusion-cifar10/paper", "paper", "cifar10/fp-diffusion/paper"),
    ],
)
def test_a_training_of_the_paper_is_the_one_of_the_file_of_its_dataset(mine: str, name: str, theirs: str) -> None:
    """So they share one folder in the store, and what a file says of its sources holds here too."""
    assert run("paper", mine) == run(name, theirs)


def scaled(method: str, sampler: str = "") -> dict[tuple[int, float], float]:
    """(network calls, k) -> b of the corrected samplings of a method in configs/paper.yaml."""
    found = {}
    for name, sampling in plan("paper").experiment.sampled(method).items():
        for one in sampling.corrections:
            if one["name"] == "epsilon-scaling" and sampler in name:
                assert sampling.control
                assert one["scaled"] == "eps"
                found |= {(nfe, one["k"]): one["b"] for nfe in sampling.nfe}
    return found


ES = {  # Ning et al. (2024), table of ADM: b at 20, 50, 100 calls, then k with b at 20
    "adm-cifar10": ((1.017, 1.017, 1.017), (0.0025, 1.0)),
    "adm-lsun64": ((1.011, 1.007, 1.006), (0.0008, 1.0034)),
    "adm-ffhq128": ((1.008, 1.007, 1.005), (0.0004, 1.0042)),
    "adm-imagenet64": ((1.006, 1.006, 1.006), (0.0002, 1.0041)),
    "adm-imagenet128": ((1.005, 1.004, 1.004), (0.00022, 1.00291)),
}


@pytest.mark.parametrize("method", ES)
def test_constants_of_epsilon_scaling_for_adm(method: str) -> None:
    uniform, (k, b) = ES[method]
    found = scaled(method)
    assert tuple(found[nfe, 0.0] for nfe in (20, 50, 100)) == uniform
    assert {key: value for key, value in found.items() if key[1]} == {(20, k): b}


@pytest.mark.parametrize("method", [method for method in ES if method != "adm-cifar10"])
def test_linear_lambda_has_the_mean_of_the_uniform_one(method: str) -> None:
    """At the same sum of lambda, as its search says; the published pair of CIFAR-10 alone does not keep to it."""
    uniform, (k, b) = ES[method]
    lambdas = epsilon_scaling.factors(epsilon_scaling.Options(k=k, b=b), 20)
    assert sum(lambdas) / 20 == pytest.approx(uniform[0], abs=1e-4)


@pytest.mark.parametrize(
    ("method", "sampler", "expected"),
    [  # b at 13, 21, 35 calls
        ("edm", "heun", (1.0060, 0.9985, 1.0005)),
        ("edm", "euler", (1.0048, 1.0043, 1.0034)),
        ("edm-conditional", "heun", (1.0070, 0.9983, 1.0006)),
        ("edm-conditional", "euler", (1.0051, 1.0045, 1.0035)),
    ],
)
def test_constants_of_epsilon_scaling_for_edm(method: str, sampler: str, expected: tuple[float, ...]) -> None:
    assert scaled(method, sampler) == {(nfe, 0.0): b for nfe, b in zip((13, 21, 35), expected, strict=True)}


def test_constants_that_nobody_published_are_tuned_on_ten_thousand_samples() -> None:
    samplings = plan("paper").experiment.sampling
    tunings = {name: one.tuning for name, one in samplings.items() if one.tuning}
    assert {t["name"] for t in tunings.values()} == {"uniform-scaling", "time-shift"}
    assert {t["images"] for t in tunings.values()} == {10_000}
    assert [name for name, t in tunings.items() if t.get("scaled") == "x0"] == ["ldm-es"]
    assert {one.images for one in samplings.values()} == {50_000}
    transfer = samplings["adm-transferred"].transfer
    assert transfer is not None
    assert (transfer.sampling, transfer.nfe, samplings["adm-transferred"].nfe) == ("adm-tuned", 20, [50, 100])


def test_guidance_in_the_paper_is_that_of_imagenet128() -> None:
    one = plan("paper").experiment
    (theirs,) = plan("imagenet128").experiment.sampling["ancestral"].corrections
    assert {str(s.corrections[-1]) for s in one.sampled("adm-imagenet128").values()} == {str(theirs)}


def test_the_cross_has_every_remedy_under_every_sampler() -> None:
    """Trained methods x samplers x with and without scaling x calls."""
    samplers, ways = ("ancestral", "ddim", "analytic-dpm"), (None, "uniform-scaling")
    calls = (10, 20, 50, 100, 200, 300, 400, 1000)
    for method in ("ddpm", "ddpm-reg", "consistent-dm", "fp-diffusion"):
        drawn = plan("paper").experiment.sampled(f"{method}-cifar10").values()
        cells = {(s.sampler["name"], (s.tuning or {}).get("name"), nfe) for s in drawn for nfe in s.nfe}
        assert set(product(samplers, ways, calls)) <= cells


def test_noise_of_ddim_and_edm_in_the_paper() -> None:
    """DDIM's eta from 0 to 1, with and without scaling; churn beside its own control."""
    one = plan("paper").experiment
    drawn = [s for s in one.sampled("ddpm-cifar10").values() if s.sampler["name"] == "ddim" and s.nfe == [20, 50, 100]]
    etas = {(s.sampler["eta"], (s.tuning or {}).get("name")) for s in drawn}
    assert etas - {(0.0, "time-shift")} == set(product((0.0, 0.2, 0.5, 1.0), (None, "uniform-scaling")))
    churned = [s for s in one.sampled("edm").values() if s.sampler["s_churn"]]
    assert {(s.sampler["s_churn"], s.sampler["s_noise"]) for s in churned} == {
        (churn, noise) for churn in (10, 30) for noise in (1.0, 1.003, 1.007)
    }
    assert {(s.control, s.clip_x0) for s in churned} == {("heun", False)}


def test_fokker_planck_has_one_balance_at_every_size() -> None:
    """alpha is 2 * 0.15 / D beside a mean over D numbers (docs/methods/fp-diffusion.md)."""
    known = {"paper/cifar10/paper": 3072, "paper/celeba64/celeba64": 3 * 64 * 64, "everything-digits/digits/paper": 64}
    for place, dimension in known.items():
        name, dataset, variant = place.split("/")
        alpha = run(name, f"{dataset}/fp-diffusion/{variant}").objective["alpha"]
        assert alpha == pytest.approx(2 * 0.15 / dimension, rel=0.03)


def test_digits_show_every_objective_beside_its_control() -> None:
    one = plan("everything-digits")
    guides = {CLASSIFIER}  # guidance-digits has it
    assert {i.run.objective["name"] for i in one.instances} == set(registry.names("objectives")) - guides
    assert one.differences == []
    assert {(i.method, i.variant) for i in one.instances} == {tuple(row) for row in one.comparisons["table1"]["rows"]}
    alone = {f"{i.method}/{i.variant}" for i in one.instances} - {
        f"{m}/{v}" for m, a in one.experiment.methods.items() for v, x in a.variants.items() if x.control
    }
    assert alone == {"ddpm/paper", "ddpm/longer", "ddpm/latent", "adm/paper", "edm/paper"}
    for i in one.instances:
        control = one.experiment.methods[i.method].variants[i.variant].control
        assert not control or set(one.experiment.sampled(i.method)) == set(
            one.experiment.sampled(control.partition("/")[0])
        )


def test_the_released_code_of_the_paper() -> None:
    """vanderschaarlab/epdm: v-prediction, sigmoid schedule, no time weights, equal weights, L = 5."""
    one = run("paper", "cifar10/ddpm-reg/released")
    assert (one.diffusion.schedule, one.diffusion.prediction) == ("sigmoid", "v")
    assert (one.training.lr, one.training.adam_betas, one.training.batch_size) == (1e-4, (0.9, 0.99), 128)
    assert (one.training.ema_decay, one.training.ema_every) == (0.995, 10)
    assert (one.training.steps, one.network["dropout"]) == (500_000, 0.0)
    sampled = plan("paper").experiment.sampling["posterior"].sampler["variance"]
    assert sampled == one.objective["variance"] == "fixed-small"
    chosen = {k: one.objective[k] for k in ("lambda_nll", "lambda_reg", "rho", "bootstrap_length", "kernel")}
    assert chosen == {
        "lambda_nll": 1.0,
        "lambda_reg": 1.0,
        "rho": 0.0,
        "bootstrap_length": 5,
        "kernel": "five-gaussians",
    }


def test_edm_and_pfgmpp_are_as_published() -> None:
    """Karras et al. (2022), Xu et al. (2023): networks by their size, D, conditional or not, 35 calls, no clipping."""
    one = plan("edm-cifar10")
    runs = {f"{i.method}/{i.variant}": i.run for i in one.instances}
    sizes = {name: round(trained.parameters(run, (3, 32, 32), 10) / 1e6, 1) for name, run in runs.items()}
    assert sizes == {name: 55.7 if "ddpmpp" in name else 56.4 for name in runs}
    freedom = {name: run.diffusion.extra_dimensions for name, run in runs.items() if name.startswith("pfgmpp/")}
    assert freedom == {"pfgmpp/D128": 128, "pfgmpp/D2048": 2048, "pfgmpp/D2048-conditional": 2048}
    assert {name for name, run in runs.items() if run.network["conditional"]} == {
        name for name in runs if name.endswith("conditional")
    }
    heun = one.experiment.sampling["heun"]
    assert (heun.sampler["order"], heun.sampler["s_churn"], heun.clip_x0) == (2, 0.0, False)
    assert heun.steps(35) == 18
    for name, run in runs.items():
        assert (run.objective["augment"], run.network["dropout"], run.training.batch_size) == (0.12, 0.13, 512), name


@pytest.mark.parametrize(
    ("name", "steps", "batch_size", "lr"),
    [("celebahq256", 410_000, 48, 9.6e-5), ("ffhq256", 635_000, 42, 8.4e-5)],
)
def test_latent_diffusion_has_the_published_sizes(name: str, steps: int, batch_size: int, lr: float) -> None:
    """Rombach et al. (2022): LDM-VQ-4, a network of 274M parameters [memory], latents 3x64x64 [found]."""
    one = plan(f"ldm-{name}")
    (found,) = datasets(one)
    assert found.parameters == [274_056_163]
    assert "latents (3x64x64, " in found.latents
    assert "an autoencoder with 55.3 M parameters" in found.latents
    training = run(f"ldm-{name}", f"{name}/ddpm/paper").training
    assert (training.steps, training.batch_size, training.lr, training.flip) == (steps, batch_size, lr, False)
    assert {s.sampler.get("eta", s.sampler.get("variance")) for s in one.experiment.sampling.values()} == {
        0.0,
        "fixed-small",
    }


def test_guided_imagenet_is_that_of_the_exposure_bias_paper() -> None:
    """Ning et al. (2024): linear schedule, labels, guidance of scale 0.5 at 20, 50, 100 calls, lambda of each."""
    one, adm, guide = plan("imagenet128"), *(run("imagenet128", f"imagenet128/{m}/paper") for m in ("adm", "guide"))
    sizes = [trained.parameters(r, (3, 128, 128), 1000) for r in (adm, guide)]
    assert sizes == [421_529_606, 42_568_040]
    assert (adm.diffusion.schedule, adm.diffusion.learned_variance, adm.network["conditional"]) == (
        "linear",
        True,
        True,
    )
    assert (guide.diffusion.schedule, guide.network["conditional"], guide.classifies) == ("linear", False, True)
    assert (guide.training.steps, guide.training.batch_size, guide.training.lr) == (300_000, 256, 3e-4)
    assert guide.training.weight_decay == 0.05
    found = {}
    for sampling in one.experiment.sampling.values():
        *before, last = sampling.corrections
        assert (last["name"], last["scale"], last["classifier"]) == ("classifier-guidance", 0.5, "guide/paper")
        assert last["form"] == "mean"
        assert sampling.sampler["variance"] == "learned"
        found |= {(nfe, before[0]["b"] if before else 1.0): sampling for nfe in sampling.nfe}
    assert set(found) == {(20, 1.0), (50, 1.0), (100, 1.0), (20, 1.005), (50, 1.004), (100, 1.004)}


def test_half_an_hour_measures_whole_chains_and_scores_short_ones() -> None:
    one = plan("cifar10-jpeg-30min")
    sampling, published = one.experiment.sampling, plan("cifar10-jpeg").instances[0].run
    assert {(i.method, i.seed) for i in one.instances} == {(m, s) for m in ("ddpm", "ddpm-reg") for s in (0, 1, 2)}
    assert {name: (s.nfe, s.scored) for name, s in sampling.items()} == {
        "whole": ([1000], False),
        "respaced": ([100], True),
    }
    assert (one.experiment.errors.times, one.experiment.errors.chains, len(one.experiment.errors.kernels)) == (
        "every",
        1000,
        3,
    )
    assert sampling["respaced"].images == one.experiment.scores.samples == 10_000
    assert one.progress == [path.replace("scores/scores", "progress/progress") for path in one.records("scores")]
    run = one.instances[0].run
    assert run.network == {**published.network, "channels": 64}
    assert (run.training.lr, run.training.batch_size) == (published.training.lr, published.training.batch_size)
    assert not one.differences
