"""The regularised loss: estimators against the full sum, rollouts against their law, options and presets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline_lib import registry
from pipeline_lib.analytic import exact, kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run, parse_experiment
from pipeline_lib.config.plan import Plan
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.diffusion.transitions import VARIANCES
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained
from pipeline_lib.objectives import Batch, ddpm_reg
from pipeline_lib.objectives.ddpm_reg import Options, depths, draw_times
from pipeline_lib.records import tables
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from tests.config.test_plan import changed
from tests.conftest import RUNTIME, tiny_run
from tests.objectives import closed_forms

DOCS = Path(__file__).parents[2] / "docs" / "methods"
DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.05, 0.02], [0.02, 0.03]]))
PROBLEM = kit.Problem(paths.build(Diffusion(timesteps=10)), DATA, "eps")
FIXED: dict[str, Any] = {"kernel": "gaussian", "bandwidth": 0.7, "bootstrap_length": 3, "rho": 0.3}


def erring() -> kit.Affine:
    affine = PROBLEM.optimum()
    with torch.no_grad():
        affine.gain *= 0.8
        affine.offset += 0.1
    return affine


def cumulative(objective: ddpm_reg.DDPMReg, affine: kit.Affine, batch: Batch) -> torch.Tensor:
    """Estimates (G,) of the regulariser."""
    return objective.terms(affine, batch)["cumulative"]


def halves(
    objective: ddpm_reg.DDPMReg, affine: kit.Affine, batch: Batch, t: torch.Tensor, length: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both halves of each group at t (G,), the first by `length` (G,) steps of the model."""
    starts = objective.starts(PROBLEM.path, batch, t, length)
    return objective.rolled(affine, batch, starts), objective.noised(PROBLEM.path, batch, t)


def mean_of(draw: Callable[[Batch], torch.Tensor], count: int, group: int, batches: int = 20) -> tuple[float, float]:
    """Mean and standard error over groups of what `draw` gives for a batch."""
    with torch.no_grad():
        values = torch.cat([draw(PROBLEM.batch(count, i, group=group)) for i in range(batches)]).double()
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize("estimator", ["importance", "sampled"])
def test_the_mean_of_the_estimates_is_the_full_sum_of_equation_15(estimator: str, variance: str) -> None:
    """With w_t alone in the place of T w_t the first would be T = 10 times too small."""
    options = Options(**FIXED, estimator=estimator, variance=variance)
    truth = closed_forms.regulariser(options, erring(), PROBLEM, VARIANCES[variance])
    objective, affine = ddpm_reg.build(options), erring()
    mean, error = mean_of(lambda batch: cumulative(objective, affine, batch), 8000, 20)
    assert mean == pytest.approx(truth, abs=4 * error)
    assert error < 0.03 * truth


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
def test_without_bootstrapping_it_is_the_cumulative_error_of_the_sampler(variance: str) -> None:
    """Every chain from N(0, I) at T (Section 5.1): the full sum over t of MMD^2 between p_theta(x_t) and q(x_t)."""
    whole = {"warm_start": False, "rollout": "exact", "bootstrap_length": PROBLEM.path.timesteps}
    options, affine = Options(**{**FIXED, **whole}, variance=variance), erring()
    truth = closed_forms.regulariser(options, affine, PROBLEM, VARIANCES[variance])
    mean, error = mean_of(lambda batch: cumulative(ddpm_reg.build(options), affine, batch), 8000, 20)
    assert mean == pytest.approx(truth, abs=4 * error)
    assert error < 0.05 * truth
    shown = closed_forms.regulariser(Options(**FIXED, variance=variance), affine, PROBLEM, VARIANCES[variance])
    assert abs(truth - shown) > 10 * error  # a few steps from the true x_s are another quantity


def test_time_weights_are_normalised_and_fall_exponentially() -> None:
    w = ddpm_reg.time_weights(0.003, 1000)
    assert w.sum() == pytest.approx(1)
    assert w[0] / w[999] == pytest.approx(np.exp(0.003 * 999))
    assert np.allclose(ddpm_reg.time_weights(0, 50), 1 / 50)


def test_v_statistics_exceed_u_statistics_by_their_closed_bias() -> None:
    options, half = Options(**FIXED, estimator="sampled"), 10
    u, v = (ddpm_reg.build(options.model_copy(update={"statistic": s})) for s in "uv")
    affine = erring()
    mean, error = mean_of(lambda batch: cumulative(v, affine, batch) - cumulative(u, affine, batch), 4000, 2 * half)
    assert mean == pytest.approx(
        closed_forms.v_bias(options, affine, PROBLEM, VARIANCES["fixed-large"], half), abs=4 * error
    )
    assert error < 0.02 * mean


def released_options() -> Options:
    return Options(**ddpm_reg.PRESETS["released"]["objective"])


def test_released_mmd_is_the_formula_of_the_released_code() -> None:
    """Five kernels on the stacked halves, mean squared distance as bandwidth, diagonals kept, weight 1."""
    objective, batch, affine = ddpm_reg.build(released_options()), PROBLEM.batch(48, 0, group=24), erring()
    t, length = draw_times(released_options(), 10, *(batch.group_uniform(Stream.GROUP_TIME, sub) for sub in (0, 1)))
    x, y = halves(objective, affine, batch, t, length)
    z = torch.cat((x, y), 1).detach().double().numpy()
    expected = []
    for group in z:
        squared = ((group[:, None] - group[None]) ** 2).sum(-1)
        n = len(group)
        bandwidth = squared.sum() / (n**2 - n)
        k = sum(np.exp(-squared / (bandwidth * 2.0**m)) for m in (-2, -1, 0, 1, 2))
        half = n // 2
        expected.append(k[:half, :half].mean() - 2 * k[:half, half:].mean() + k[half:, half:].mean())
    assert cumulative(objective, affine, batch).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kernel", ["laplace", "gaussian", "rational-quadratic"])
def test_the_median_bandwidth_is_that_of_the_forward_half(kernel: str) -> None:
    objective = ddpm_reg.build(Options(kernel=kernel, estimator="sampled", bootstrap_length=2))
    batch = PROBLEM.batch(22, 0, group=22)
    u, v = (batch.group_uniform(Stream.GROUP_TIME, sub) for sub in (0, 1))
    (x,), (y,) = halves(objective, erring(), batch, *draw_times(objective.options, 10, u, v))
    x, y = x.detach().double(), y.double()
    scale = torch.pdist(y).median()  # of 55 distances
    shape = {
        "laplace": lambda d: torch.exp(-d / scale),
        "gaussian": lambda d: torch.exp(-((d / scale) ** 2) / 2),
        "rational-quadratic": lambda d: 1 / (1 + (d / scale) ** 2 / 2),
    }[kernel]
    expected = shape(torch.pdist(x)).mean() + shape(torch.pdist(y)).mean() - 2 * shape(torch.cdist(x, y)).mean()
    assert cumulative(objective, erring(), batch).tolist() == pytest.approx([float(expected)], rel=1e-3, abs=1e-5)


def law_found(options: Options, t: int, length: int, affine: kit.Affine) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of 20,000 rolled out x_t."""
    batch = PROBLEM.batch(40_000, 0, group=40_000)
    x, _ = halves(ddpm_reg.build(options), affine, batch, torch.tensor([t]), torch.tensor([length]))
    flat = x[0].detach().double()
    return flat.mean(0), torch.cov(flat.T)


def agrees(found: tuple[torch.Tensor, torch.Tensor], law: exact.Normal) -> bool:
    spread = 4.5 / 20_000**0.5
    size = law.covariance.diagonal()
    near = (found[0] - law.mean).abs() <= spread * size.sqrt()
    return bool(near.all()) and torch.allclose(found[1], law.covariance, atol=spread * 2**0.5 * float(size.max()))


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize(("t", "length"), [(0, 3), (4, 1), (5, 5)])
def test_a_warm_rollout_has_the_law_of_the_exact_recursion(t: int, length: int, variance: str) -> None:
    affine, start = erring(), closed_forms.forward_law(PROBLEM, t + length)
    found = law_found(Options(variance=variance, gradient="last"), t, length, affine)
    assert agrees(found, closed_forms.rolled_law(affine, start, t + length, length, VARIANCES[variance]))
    assert not agrees(found, closed_forms.forward_law(PROBLEM, t))


@pytest.mark.parametrize("t", [0, 3])
def test_without_warm_start_all_steps_from_the_top_are_the_chain_of_the_sampler(t: int) -> None:
    options = Options(variance="fixed-small", warm_start=False, rollout="exact", bootstrap_length=10)
    _, length = draw_times(options, 10, torch.tensor([(t + 0.5) / 10]), torch.tensor([0.5]))
    assert int(length) == 10 - t
    affine, prior = erring(), exact.Normal(torch.zeros(2).double(), torch.eye(2).double())
    chain = closed_forms.rolled_law(affine, prior, 10, 10 - t, VARIANCES["fixed-small"])
    assert agrees(law_found(options, t, 10 - t, affine), chain)


LAWS = [(e, r) for e in ("importance", "sampled", "released") for r in ("uniform", "exact")]


@pytest.mark.parametrize(("estimator", "rollout"), LAWS)
def test_depths_count_the_images_that_the_network_sees(estimator: str, rollout: str) -> None:
    rho = 0.0 if estimator == "released" else 0.2
    options = Options(estimator=estimator, rollout=rollout, rho=rho, bootstrap_length=4)
    expected = depths(options, 12, batch_size=64, group=16)
    groups = 100_000
    u, v = torch.rand(2, groups, generator=torch.Generator().manual_seed(0))
    t, length = (k.numpy() for k in draw_times(options, 12, u, v))
    found = np.zeros((13, 4))
    for j in range(4):
        on = length > j
        np.add.at(found[:, j], (t + length - j)[on], 1)
    share = found / groups  # of groups that call the network there
    found = 64 / 16 * 8 * share
    found[1:, 0] += 64 / 12
    error = 64 / 16 * 8 * (share.clip(1e-4) / groups) ** 0.5
    assert (np.abs(found - expected) <= 5 * error).all()
    assert expected.sum() == pytest.approx(64 * (1 + length.mean() / 2), rel=0.01)
    if rollout == "uniform":
        assert expected.sum() < 64 * (1 + 2.5 / 2)  # the mean of 1..4, and less near the end


def test_released_times_never_reach_clean_data() -> None:
    u, v = torch.rand(2, 50_000, generator=torch.Generator().manual_seed(0))
    t, length = draw_times(released_options(), 10, u, v)
    s = t + length
    assert sorted(set(t.tolist())) == list(range(1, 10))
    assert torch.bincount(s).tolist() == pytest.approx([0, 0] + [50_000 / 9] * 9, abs=400)
    clipped = torch.bincount(t[s == 4], minlength=4)[1:] / (s == 4).sum()  # 4 - U{1..5} is 3, 2, 1, 0, -1
    assert clipped.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.03)


def test_rho_zero_and_equal_lengths_are_a_uniform_t() -> None:
    u, v = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0))
    for estimator in ("importance", "sampled"):
        t, length = draw_times(Options(rho=0, estimator=estimator), 10, u, v)
        assert torch.bincount(t).tolist() == pytest.approx([2000] * 10, abs=200)
        assert torch.bincount(length[t == 8]).tolist() == pytest.approx([0, 1000, 1000], abs=130)  # truncated at T


def test_a_group_does_not_depend_on_the_rest_of_the_batch() -> None:
    objective, affine, whole = ddpm_reg.build(Options(bootstrap_length=3)), erring(), PROBLEM.batch(60, 3, group=20)
    part = Batch(whole.x0[20:], None, whole.index[20:], 3, 20, whole.noise)
    together, alone = (cumulative(objective, affine, batch) for batch in (whole, part))
    assert together.shape == (3,)
    assert torch.allclose(together[1:], alone, rtol=1e-4, atol=1e-7)
    assert torch.equal(objective.terms(affine, whole)["simple"][20:], objective.terms(affine, part)["simple"])
    other = Batch(whole.x0, None, whole.index, 4, 20, whole.noise)
    assert not torch.allclose(cumulative(objective, affine, other), together)


@pytest.mark.parametrize("gradient", ["chain", "last"])
def test_the_gradient_reaches_every_call_of_the_chain(gradient: str) -> None:
    options = Options(bootstrap_length=3, rollout="exact", gradient=gradient)
    affine, batch = erring(), PROBLEM.batch(20, 0, group=20)
    t, length = draw_times(options, 10, batch.group_uniform(Stream.GROUP_TIME), torch.tensor([0.5]))
    assert int(length) == 3
    cumulative(ddpm_reg.build(options), affine, batch).sum().backward()
    reached = affine.gain.grad.abs().sum((1, 2)).nonzero().flatten().tolist()
    assert reached == [int(t) + k for k in ((1, 2, 3) if gradient == "chain" else (1,))]


def test_first_halves_are_rolled_out_and_second_halves_are_noised() -> None:
    x0 = torch.arange(24.0).reshape(12, 2, 1, 1)
    batch = Batch(x0, None, torch.arange(12), 0, 6, Noise(0))
    with torch.no_grad():
        x, y = halves(ddpm_reg.build(Options()), PROBLEM.optimum(), batch, torch.tensor([0, 0]), torch.tensor([1, 1]))
    first, second = x0.reshape(2, 2, 3, 2).unbind(1)
    assert torch.equal(y, second)  # no noise at t = 0
    assert float((x - first).norm()) < float((x - second).norm())


def test_labels_go_with_the_images_that_are_rolled_out() -> None:
    seen = []

    class Watching(kit.Affine):
        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            seen.append(labels)
            return super().forward(x, t)

    batch = Batch(torch.zeros(12, 2, 1, 1), torch.arange(12), torch.arange(12), 0, 6, Noise(0))
    watching = Watching(PROBLEM.path, "eps", 2)
    cumulative(ddpm_reg.build(Options(rollout="exact", bootstrap_length=2)), watching, batch)
    assert [labels.tolist() for labels in seen] == [[*range(12), 0, 1, 2, 6, 7, 8], [0, 1, 2, 6, 7, 8]]


@pytest.mark.parametrize("gradient", ["chain", "last"])
def test_the_shared_first_call_changes_nothing(gradient: str) -> None:
    """The terms, and their gradients, of a loss and rollouts that each ask for themselves."""
    objective, batch = ddpm_reg.build(Options(bootstrap_length=3, gradient=gradient)), PROBLEM.batch(60, 2, group=20)
    t, length = draw_times(objective.options, 10, *(batch.group_uniform(Stream.GROUP_TIME, sub) for sub in (0, 1)))
    assert len(set(length.tolist())) > 1
    shared, alone = erring(), erring()
    together = objective.terms(shared, batch)
    simple = objective.simple.terms(alone, batch)["simple"]
    apart = objective.cumulative(*halves(objective, alone, batch, t, length), t, 10)
    assert torch.allclose(together["simple"], simple, atol=1e-6)
    assert torch.allclose(together["cumulative"], apart, rtol=1e-4, atol=1e-7)
    (together["simple"].sum() + together["cumulative"].sum()).backward()
    (simple.sum() + apart.sum()).backward()
    assert torch.allclose(shared.gain.grad, alone.gain.grad, rtol=1e-4, atol=1e-6)


def test_training_runs_and_the_regulariser_changes_it(tiny_data: Manifest, tmp_path: Path) -> None:
    ends = []
    for weight in (0.2, 0.4):
        objective = {"name": "ddpm-reg", "lambda_reg": weight}
        config = tiny_run(objective=objective, training={"steps": 5, "mmd_group": 8})
        train.run(config, RUNTIME, tmp_path / "manifest.json", tiny_data)
        manifest = Manifest.load(tmp_path / "manifest.json")
        history = tables.read(manifest.file("history.parquet"), tables.HISTORY)
        last = history[history.step == 5].set_index("key").value
        assert last["loss"] == pytest.approx(0.8 * last["loss/simple"] + weight * last["loss/cumulative"], rel=1e-4)
        denoiser, _ = trained.load(manifest.file("weights.safetensors"))
        ends.append(torch.cat([p.detach().flatten() for p in denoiser.network.parameters()]))
    assert bool(torch.isfinite(ends[0]).all())
    assert not torch.equal(*ends)


def run_of(objective: dict[str, Any], group: int | None = 6) -> Run:
    values = {"objective": {"name": "ddpm-reg", **objective}, "diffusion": {"timesteps": 100}}
    return parse(Run, values | {"training": {"batch_size": 420, "mmd_group": group}})


@pytest.mark.parametrize(
    ("options", "group", "sentence"),
    [
        ({}, None, r"an even number of at least 6 \(it is not set\)"),
        ({}, 7, r"an even number of at least 6 \(it is 7\)"),
        ({}, 4, r"an even number of at least 6 \(it is 4\)"),
        ({"lambda_nll": 0, "lambda_reg": 0}, 6, "both 0, so nothing is trained"),
        ({"bootstrap_length": 101}, 6, "bootstrap_length is 101, but the path has only 100 steps"),
        ({"rho": 8.0}, 6, r"rho is 8, .* vanish at T = 100; keep rho below 7"),
        ({"estimator": "released"}, 6, "set objective.rho to 0"),
        ({"bandwidth": 0.0}, 6, "bandwidth must be positive and finite"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], group: int | None, sentence: str) -> None:
    with pytest.raises(BadConfig, match=f"^methods.x.variants.y: .*{sentence}.*\\.$"):
        ddpm_reg.check(Options(**options), run_of(options, group), "methods.x.variants.y")


def test_what_fits_is_accepted() -> None:
    ddpm_reg.check(Options(rho=6.9, bootstrap_length=100), run_of({}), "here")


@pytest.mark.parametrize(
    ("option", "value"),
    [("lambda_nll", -0.1), ("lambda_reg", float("nan")), ("rho", float("inf")), ("rho", -1), ("bootstrap_length", 0)],
)
def test_an_option_out_of_range_is_one_sentence(option: str, value: float) -> None:
    with pytest.raises(BadConfig, match=rf"^objective.{option}: input should be .*\.$"):
        run_of({option: value})


FULL = {"training": {"batch_size": 128}}  # over the 64 of the dataset


def planned(objective: str, preset: str | None, run: Mapping[str, Any] = FULL) -> dict[str, Any]:
    values = changed("methods/new", {"objective": objective, "run": run, "variants": {"one": {"preset": preset}}})
    plan = Plan(parse_experiment({**values, "base": {}}))
    return next(i.run for i in plan.instances if i.method == "new").model_dump(mode="json")


def test_a_plan_refuses_it_before_any_job() -> None:
    with pytest.raises(BadConfig, match=r"^methods.new.variants.one: ddpm-reg compares"):
        planned("ddpm-reg", None)


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Section.key -> both values, where they differ."""
    keys = [(section, key) for section in one for key in {**one[section], **other[section]}]
    both = {f"{s}.{k}": (one[s].get(k), other[s].get(k)) for s, k in keys}
    return {key: values for key, values in both.items() if values[0] != values[1]}


BASE = {
    "diffusion.schedule": ("linear", "sigmoid"),
    "diffusion.prediction": ("eps", "v"),
    "objective.weighting": ("none", "snr/(snr+1)"),
    "training.steps": (800_000, 500_000),
    "training.lr": (2e-4, 1e-4),
    "training.adam_betas": ([0.9, 0.999], [0.9, 0.99]),
    "training.warmup_steps": (5000, 0),
    "training.ema_decay": (0.9999, 0.995),
    "training.ema_every": (1, 10),
}


def test_the_presets_of_ddpm_differ_in_this_and_nothing_else() -> None:
    assert differences(planned("ddpm", "paper"), planned("ddpm", "released")) == BASE


def test_the_presets_of_ddpm_reg_differ_in_this_and_nothing_else() -> None:
    """The paper's constants that are recollected stand here only as what the preset holds, not as what is true."""
    defaults = Options()
    assert differences(planned("ddpm-reg", "paper"), planned("ddpm-reg", "released")) == BASE | {
        "objective.lambda_nll": (defaults.lambda_nll, 1.0),
        "objective.lambda_reg": (defaults.lambda_reg, 1.0),
        "objective.rho": (defaults.rho, 0.0),
        "objective.estimator": ("importance", "released"),
        "objective.variance": ("fixed-large", "fixed-small"),
        "objective.kernel": ("laplace", "five-gaussians"),
        "objective.bandwidth": ("median", "mean"),
        "objective.statistic": ("u", "v"),
    }


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_a_preset_and_its_control_differ_in_the_regulariser_alone(preset: str) -> None:
    found = differences(planned("ddpm", preset), planned("ddpm-reg", preset))
    own = set(Options.model_fields) - {"norm", "weighting"}
    assert set(found) == {"objective.name", "training.mmd_group"} | {f"objective.{name}" for name in own}
    assert found["training.mmd_group"] == (None, 128)
    assert found["objective.bootstrap_length"] == (None, 5)


@pytest.mark.parametrize("name", ["ddpm", "ddpm-reg"])
def test_the_docs_page_names_every_option_and_preset(name: str) -> None:
    module = registry.find("objectives", name)
    page = (DOCS / f"{name}.md").read_text()
    known = set(module.PRESETS) | set(module.Options.model_fields)
    assert [word for word in known if f"`{word}`" not in page] == []
