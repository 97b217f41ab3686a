"""The score Fokker-Planck equation: no residual at exact scores, its order, its bias, and a network behind it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.analytic.mixtures import Mixture, gaussian, mixture
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction, perturb
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.paths import VPPath
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks import trained
from pipeline_lib.objectives import Batch, fp_diffusion
from pipeline_lib.objectives.fp_diffusion import Options
from pipeline_lib.records.store import Manifest
from pipeline_lib.training import train
from pipeline_lib.training.loop import Trainer
from tests.conftest import tiny_run
from tests.objectives.test_ddpm_reg import DOCS, differences, planned

PATH = paths.build_vp(Diffusion(timesteps=100))
MIXTURE = mixture(
    torch.tensor([0.25, 0.5, 0.25]),
    torch.tensor([[-0.7, 0.2], [0.5, 0.5], [0.1, -0.6]]),
    torch.tensor([[[0.05, 0.02], [0.02, 0.03]], [[0.04, -0.01], [-0.01, 0.06]], [[0.03, 0.0], [0.0, 0.02]]]),
)
GAUSSIAN = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
EXACT = [2**0.5 * torch.eye(2, dtype=torch.float64)[i] for i in range(2)]  # the mean over these probes is the trace


class Known:
    """The score of noised data in float64, times `factor`, as a function of x and of a continuous t."""

    def __init__(self, data: Mixture, factor: float = 1.0, path: VPPath = PATH) -> None:
        self.data, self.factor, self.path = data, factor, path

    def __call__(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
        log_alpha_bar = self.path.log_alpha_bar(t)
        a, s = (log_alpha_bar / 2).exp(), (-log_alpha_bar.expm1()).sqrt()
        flat, x0 = x.flatten(1).double(), torch.zeros(len(x), x[0].numel(), dtype=torch.float64)
        for value in t.unique():
            rows = (t == value).nonzero().flatten()
            at = float(a[rows[0]]), float(s[rows[0]])
            x0 = x0.index_copy(0, rows, self.data.posterior_mean(flat[rows], *at))
        a, s = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in (a, s))
        eps = self.factor * (x.double() - a * x0.reshape(x.shape)) / s
        return Prediction(x, a, s, eps, "eps")


def points(t: float, count: int = 40, data: Mixture = MIXTURE) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t (count, 2, 1, 1) and t (count,), float64."""
    a, s = float(PATH.alpha_bar[int(t)] ** 0.5), float((1 - PATH.alpha_bar[int(t)]) ** 0.5)
    x = data.noised(a, s).sample(Noise(1), count)
    return x[:, :, None, None], torch.full((count,), t, dtype=torch.float64)


def left_over(
    denoiser: Known,
    x: torch.Tensor,
    t: torch.Tensor,
    h: float = 1e-5,
    probes: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """r (count, 2), averaged over the probes: those of an exact divergence where none are given."""
    objective = fp_diffusion.build(Options(step_back=h, step_ahead=h / 2))
    with torch.enable_grad():
        probes = [e[None, :, None, None].expand(x.shape) for e in EXACT] if probes is None else probes
        return objective.equation(denoiser, x, t, probes)[0].mean(0).detach()


def change(t: float, x: torch.Tensor) -> float:
    """Root mean square of ds/dt at the exact score: the size of what the residual is a difference of."""
    now, h = torch.full((len(x),), t, dtype=torch.float64), 1e-3
    s = [fp_diffusion.score(Known(MIXTURE), x, now + d, None) for d in (-h, h)]
    return float(((s[1] - s[0]) / (2 * h) * PATH.timesteps).square().mean().sqrt())


@pytest.mark.parametrize("t", [1.4, 5.5, 37.0, 80.3])
def test_nothing_is_left_at_the_exact_score_of_a_mixture(t: float) -> None:
    x, times = points(t)
    assert float(left_over(Known(MIXTURE), x, times).abs().max()) < 1e-5 * change(t, x)


@pytest.mark.parametrize("t", [5.5, 40.3])
def test_the_time_difference_is_of_second_order_also_across_the_steps(t: float) -> None:
    """Arms of up to 0.8 and 0.4 steps, so some cross an integer t, where beta jumps."""
    x, times = points(t)
    sizes = [float(left_over(Known(MIXTURE), x, times, h).norm()) for h in (8e-3, 4e-3, 2e-3)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.25)
    assert sizes[1] / sizes[2] == pytest.approx(4, rel=0.15)


def test_a_missing_divergence_shows_on_a_mixture_and_not_on_a_gaussian() -> None:
    """A probe of zeros leaves the divergence out. That of a Gaussian's score is a constant in x, and only its gradient
    enters: a test on Gaussian data alone would let a missing, or a wrong, divergence pass."""
    for data, passes in ((GAUSSIAN, True), (MIXTURE, False)):
        x, times = points(20.0, data=data)
        without = left_over(Known(data), x, times, probes=[torch.zeros_like(x)])
        assert (float(without.norm()) < 1e-4) == passes


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE])
def test_a_score_that_is_wrong_by_a_factor_shows(data: Mixture) -> None:
    """With c s in the place of s the residual is -(beta / 2) (c^2 - c) grad |s|^2."""
    x, times = points(20.0, data=data)
    found = left_over(Known(data, 1.5), x, times)
    y = x.clone().requires_grad_()
    s = fp_diffusion.score(Known(data), y, times, None)
    (slope,) = torch.autograd.grad(s.square().sum(), y)
    expected = -float(PATH.rate(times[:1])) / 2 * (1.5**2 - 1.5) * slope.flatten(1)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def variance_of_the_probe(denoiser: Known, x: torch.Tensor, t: torch.Tensor) -> float:
    """(beta^2 / 2) sum_k |sym d_k J|^2: what one Gaussian probe adds to |r|^2 at a single x."""

    def jacobian(x: torch.Tensor) -> torch.Tensor:
        def at(x: torch.Tensor) -> torch.Tensor:
            return fp_diffusion.score(denoiser, x[None, :, None, None], t, None).flatten()

        return torch.autograd.functional.jacobian(at, x, create_graph=True)

    third = torch.autograd.functional.jacobian(jacobian, x.flatten())  # [i, j, k] = d_k J_ij
    symmetric = (third + third.transpose(0, 1)) / 2
    return float(PATH.rate(t)) ** 2 / 2 * float(symmetric.square().sum())


def test_one_probe_adds_its_variance_and_the_product_of_two_adds_nothing() -> None:
    x, t = points(20.0, 1)
    denoiser, count = Known(MIXTURE, 1.02), 20_000
    truth = float(left_over(denoiser, x, t, 1e-3).square().sum())
    bias = variance_of_the_probe(denoiser, x, t)
    assert bias > 0.2 * truth
    many, times, noise = x.expand(count, 2, 1, 1), t.expand(count), Noise(3)
    probes = [noise.normal(Stream.PROBE, torch.arange(count), 0, (2, 1, 1), i).double() for i in (0, 1)]
    for number, expected in ((1, truth + bias), (2, truth)):
        objective = fp_diffusion.build(Options(probes=number, residual_weighting="none"))
        left, _ = objective.equation(denoiser, many, times, probes[:number])
        values = 4 * objective.residual(left, PATH.rate(times)).detach()  # D^2 = 4
        assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std() / count**0.5))
        assert float(values.std() / count**0.5) < 0.05 * bias


def test_terms_of_standard_normal_data_are_those_written_out() -> None:
    """s = -x at all t: nothing is left, and q = div s + |s|^2 + x.s is -|v|^2 for the probe v."""
    batch = Batch(torch.randn(16, 2, 1, 1), None, torch.arange(16), 0, None, Noise(0))
    denoiser = Known(gaussian(torch.zeros(2), torch.eye(2)))
    terms = fp_diffusion.build(Options(beta_scalar=0.01)).terms(denoiser, batch)
    rate = PATH.rate((100 * batch.uniform(Stream.TIME)).clamp(min=1))
    probe = batch.normal(Stream.PROBE).square().sum((1, 2, 3))
    assert terms["scalar"].shape == (1,)
    assert float(terms["scalar"].detach()) == pytest.approx(float((rate / 2 * probe).norm()), rel=1e-5)
    assert terms["residual"].shape == (16,)
    assert float(terms["residual"].detach().abs().max()) < 1e-3


@pytest.mark.parametrize(("weighting", "exponent"), [("none", 0.0), ("g", 0.5), ("g2", 1.0)])
def test_the_residual_is_weighted_and_divided_as_released(weighting: str, exponent: float) -> None:
    left, rate = torch.randn(1, 5, 3), torch.tensor([0.1, 1.0, 2.0, 5.0, 20.0])
    for power in (1.0, 2.0):
        objective = fp_diffusion.build(Options(residual_weighting=weighting, power=power))
        expected = rate**exponent * (left[0].square().sum(1).sqrt() / 3) ** power
        assert torch.allclose(objective.residual(left, rate), expected)


@pytest.mark.parametrize("norm", ["mean", "sum"])
def test_likelihood_weighting_is_the_distance_of_scores(norm: str) -> None:
    """(g^2 / 2) |s - target|^2 with target -eps / s_t."""
    batch = Batch(torch.full((50, 2, 1, 1), 0.5), None, torch.arange(50), 0, None, Noise(0))
    denoiser = Known(MIXTURE)
    found = fp_diffusion.build(Options(likelihood=True, norm=norm)).terms(denoiser, batch)["simple"]
    t, eps = (100 * batch.uniform(Stream.TIME)).clamp(min=1), batch.normal(Stream.NOISE)
    x = perturb(PATH, batch.x0, t, eps)
    s = PATH.coefficients(t)[1][:, None, None, None]
    distance = (fp_diffusion.score(denoiser, x, t, None) + eps / s).square().sum((1, 2, 3))
    expected = PATH.rate(t) / 2 * distance / (2 if norm == "mean" else 1)
    assert torch.allclose(found.double(), expected, rtol=1e-4)


class Trained(torch.nn.Module):
    """The exact score of N(mean, diag(exp(log_variance))) times `factor`: five weights, any t."""

    path = PATH

    def __init__(self, mean: list[float], log_variance: list[float], factor: float) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean))
        self.log_variance = torch.nn.Parameter(torch.tensor(log_variance))
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
        a, s = (c[:, None] for c in PATH.coefficients(t))
        eps = self.factor * s * (x.flatten(1) - a * self.mean) / (a**2 * self.log_variance.exp() + s**2)
        shape = (-1, 1, 1, 1)
        return Prediction(x, a.reshape(shape), s.reshape(shape), eps.reshape(x.shape), "eps")


TRUTH = gaussian(torch.tensor([0.3, -0.2]), torch.diag(torch.tensor([0.3, 0.1])))


def loss_of(objective: fp_diffusion.FPDiffusion, denoiser: Trained, step: int, count: int) -> torch.Tensor:
    x0 = TRUTH.sample(Noise(1000 + step), count).float()[:, :, None, None]
    terms = objective.terms(denoiser, Batch(x0, None, torch.arange(count), step, None, Noise(0)))
    return torch.stack([objective.weights[name] * values.mean() for name, values in terms.items()]).sum()


def exact_weights() -> Trained:
    return Trained([0.3, -0.2], torch.tensor([0.3, 0.1]).log().tolist(), 1.0)


def gradient_scores(objective: fp_diffusion.FPDiffusion, denoiser: Trained) -> torch.Tensor:
    found = []
    for step in range(30):
        gradients = torch.autograd.grad(loss_of(objective, denoiser, step, 1000), list(denoiser.parameters()))
        found.append(torch.cat([g.flatten() for g in gradients]).double())
    stacked = torch.stack(found)
    return stacked.mean(0) / (stacked.std(0) / len(found) ** 0.5)


@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"likelihood": True}], ids=str)
def test_the_exact_score_of_gaussian_data_is_stationary(options: dict[str, Any]) -> None:
    objective = fp_diffusion.build(Options(**options))
    assert float(gradient_scores(objective, exact_weights()).abs().max()) < 4.5
    moved = Trained([0.3, -0.2], torch.tensor([0.3, 0.1]).log().tolist(), 1.2)
    assert float(gradient_scores(objective, moved).abs().max()) > 8


def test_training_ends_at_the_exact_score() -> None:
    objective, denoiser = fp_diffusion.build(Options(alpha=1e-3)), Trained([0.0, 0.0], [0.0, 0.0], 0.7)
    adam = torch.optim.Adam(denoiser.parameters(), lr=0.03)
    for step in range(250):
        adam.param_groups[0]["lr"] = 0.03 * (1 - step / 250)
        adam.zero_grad()
        loss_of(objective, denoiser, step, 250).backward()
        adam.step()
    assert denoiser.mean.tolist() == pytest.approx([0.3, -0.2], abs=0.03)
    assert denoiser.log_variance.exp().tolist() == pytest.approx([0.3, 0.1], rel=0.1)
    assert denoiser.factor.item() == pytest.approx(1, abs=0.02)


def network(**changes: Any) -> Any:
    values = {k: v for k, v in tiny_run(network=changes, diffusion={"timesteps": 100}).items() if k != "seed"}
    denoiser = trained.build(Run.model_validate(values), (1, 8, 8), 2)
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():  # also those that start at 0
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return denoiser


def eight(labels: torch.Tensor | None = None) -> Batch:
    x0 = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(x0, labels, torch.arange(8), 0, None, Noise(0))


def test_the_u_net_with_attention_has_its_second_derivatives() -> None:
    denoiser, objective = network(), fp_diffusion.build(Options(beta_scalar=0.01))
    terms = objective.terms(denoiser, eight())
    torch.stack([terms[name].mean() for name in ("residual", "scalar")]).sum().backward()
    gradients = {name: p.grad for name, p in denoiser.named_parameters()}
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients.values())
    assert float(gradients["network.down.2.attention.qkv.weight"].abs().max()) > 0


class Attending(torch.nn.Module):
    """eps by attention over two pixels, in the layout that a fused kernel takes."""

    path = PATH

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
        a, s = (c.reshape(-1, 1, 1, 1) for c in PATH.coefficients(t))
        q = x.reshape(-1, 1, 2, 1).repeat(1, 1, 1, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        return Prediction(x, a, s, attended.sum(-1).reshape(x.shape), "eps")


def test_the_fused_kernel_of_attention_stays_outside() -> None:
    """It has no second derivative."""
    objective, x, t = fp_diffusion.build(Options()), torch.randn(4, 2, 1, 1), torch.full((4,), 40.0)
    with pytest.raises(RuntimeError, match=r"flash_attention.* is not implemented"):
        objective.equation(Attending(), x, t, [torch.ones_like(x)])
    with fp_diffusion.island(Attending(), "cpu"):
        left, _ = objective.equation(Attending(), x, t, [torch.ones_like(x)])
    assert bool(left.isfinite().all())


def test_the_u_net_has_the_divergence_of_its_jacobian() -> None:
    """q of one probe against v.J v from the whole Jacobian, in float32."""
    denoiser, batch = network(), eight()
    x, t, probe = batch.x0[:1], torch.tensor([40.0]), batch.normal(Stream.PROBE)[:1]
    with fp_diffusion.island(denoiser, "cpu"):
        _, q = fp_diffusion.build(Options()).equation(denoiser, x, t, [probe])
        at: Callable[[torch.Tensor], torch.Tensor] = lambda x: fp_diffusion.score(denoiser, x, t, None)  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(at, x).reshape(64, 64)
        s = at(x).detach().flatten()
    v = probe.flatten()
    assert q.item() == pytest.approx(float(v @ jacobian @ v + s @ s + x.flatten() @ s), rel=1e-3)


def test_dropout_and_autocast_stay_outside() -> None:
    """Masks differ between calls, and bfloat16 has three digits: a time difference of either is noise."""
    objective, plain, dropping = fp_diffusion.build(Options()), network(), network(dropout=0.5).train()
    expected = objective.terms(plain, eight())
    found = objective.terms(dropping, eight())
    assert torch.equal(found["residual"], expected["residual"])
    assert not torch.equal(found["simple"], expected["simple"])
    assert dropping.training
    assert dropping.network.training
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective.terms(plain, eight())
    assert torch.equal(rounded["residual"], expected["residual"])
    assert not torch.equal(rounded["simple"].float(), expected["simple"])


def precisions() -> set[str]:
    """Of convolutions and products of matrices, on GPU and CPU."""
    gpu, cpu = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), torch.backends.mkldnn
    return {backend.fp32_precision for backend in (*gpu, cpu.matmul, cpu.conv)}


def test_tf32_stays_outside() -> None:
    """Of it torch's convolutions on a GPU are made: three digits, and a time difference is in the fourth."""
    before, seen = precisions(), []

    class Watching(Known):
        def __call__(self, *given: Any) -> Prediction:
            seen.append(precisions())
            return super().__call__(*given)

    batch = Batch(points(30.0)[0].float(), None, torch.arange(40), 0, None, Noise(0))
    fp_diffusion.build(Options()).terms(Watching(MIXTURE), batch)
    assert seen[1:] == [{"ieee"}] * 2  # the score at t, and at both arms
    assert precisions() == before


def test_the_training_keeps_tf32_out_of_the_gradients(tiny_data: Manifest, tmp_path: Path) -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    for name in ("ddpm", "fp-diffusion"):
        config = tiny_run(objective={"name": name})
        run = parse(Run, {k: v for k, v in config.items() if k != "seed"})
        trainer = Trainer(run, train.objective(run), Prepared(tiny_data), 0, tmp_path, torch.device("cpu"))
        weight = trainer.denoiser.network.first.weight
        weight.register_hook(lambda slope, name=name: seen.add((name, frozenset(precisions()))))
        trainer.step()
    assert ("fp-diffusion", frozenset({"ieee"})) in seen
    assert len(seen) == 2  # each in its own
    assert ("ddpm", frozenset(precisions())) in seen


def test_labels_go_with_every_call() -> None:
    seen = []

    class Watching(Known):
        def __call__(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
            seen.append((len(x), labels))
            return super().__call__(x, t, labels)

    labels = torch.arange(4)
    fp_diffusion.build(Options()).terms(
        Watching(MIXTURE), Batch(torch.zeros(4, 2, 1, 1), labels, torch.arange(4), 0, None, Noise(0))
    )
    assert [count for count, _ in seen] == [4, 4, 8]
    assert all(torch.equal(given, labels.repeat(count // 4)) for count, given in seen)


def test_times_are_continuous_from_1_to_T() -> None:
    """Those of ddpm from the same numbers, but not rounded up: t = 1 keeps its share 1 / T."""
    seen = []

    class Watching(Trained):
        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
            seen.append(t)
            return super().forward(x, t)

    batch = Batch(torch.zeros(4000, 2, 1, 1), None, torch.arange(4000), 0, None, Noise(0))
    fp_diffusion.build(Options()).terms(Watching([0.0, 0.0], [0.0, 0.0], 1.0), batch)
    t = seen[0]
    assert torch.equal(t.ceil(), PATH.draw_times(batch.uniform(Stream.TIME)))
    assert 0.005 < float((t == 1).float().mean()) < 0.015
    assert float(torch.cat(seen).min()) >= 0.5  # the lower arm too stays away from 0
    assert float(torch.cat(seen).max()) < 101


def test_an_image_does_not_depend_on_the_rest_of_the_batch() -> None:
    denoiser, whole, objective = network(), eight(), fp_diffusion.build(Options())
    part = Batch(whole.x0[4:], None, whole.index[4:], 0, None, whole.noise)
    together, alone = (objective.terms(denoiser, b)["residual"] for b in (whole, part))
    assert torch.allclose(together[4:], alone, rtol=1e-3)


def run_of(diffusion: dict[str, Any]) -> Run:
    return parse(Run, {"objective": "fp-diffusion", "diffusion": {"timesteps": 100, **diffusion}})


def test_bfloat16_is_refused() -> None:
    run = run_of({})
    half = run.model_copy(update={"training": run.training.model_copy(update={"precision": "bf16"})})
    with pytest.raises(BadConfig, match=r"^here: fp-diffusion takes differences that bfloat16 rounds away"):
        fp_diffusion.check(Options(), half, "here")


@pytest.mark.parametrize(
    ("options", "diffusion", "sentence"),
    [
        ({}, {"path": "edm", "prediction": "edm"}, r"path vp \(diffusion.path is edm\)"),
        ({"alpha": 0}, {}, "both 0: that is the objective ddpm"),
        ({"probes": 2, "power": 1}, {}, r"power must be 2 \(it is 1\)"),
        ({"likelihood": True, "weighting": "snr/(snr+1)"}, {}, "set objective.weighting to none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], diffusion: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=f"^methods.x.variants.y: .*{sentence}.*\\.$"):
        fp_diffusion.check(Options(**options), run_of(diffusion), "methods.x.variants.y")


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", -0.1), ("beta_scalar", float("nan")), ("step_back", 0), ("probes", 3), ("power", 0)]
)
def test_an_option_out_of_range_is_one_sentence(option: str, value: float) -> None:
    with pytest.raises(BadConfig, match=rf"^objective.{option}: input should be .*\.$"):
        parse(Run, {"objective": {"name": "fp-diffusion", option: value}})


def test_paper_differs_from_its_control_in_the_penalty_alone() -> None:
    found = differences(planned("ddpm", "paper"), planned("fp-diffusion", "paper"))
    own = set(Options.model_fields) - {"norm", "weighting"}
    assert set(found) == {"objective.name"} | {f"objective.{name}" for name in own}


def test_the_presets_differ_in_this_and_nothing_else() -> None:
    paper, released = (fp_diffusion.PRESETS[name]["training"] for name in ("paper", "released"))
    assert released == {**paper, "batch_size": 48}  # `planned` sets the batch size of its dataset
    assert differences(planned("fp-diffusion", "paper"), planned("fp-diffusion", "released")) == {
        "objective.alpha": (1e-4, 0.15),
        "objective.norm": ("mean", "sum"),
        "objective.likelihood": (False, True),
        "objective.beta_scalar": (0.0, 0.01),
    }


def test_the_docs_page_names_every_option_and_preset() -> None:
    page = (DOCS / "fp-diffusion.md").read_text()
    known = set(fp_diffusion.PRESETS) | set(Options.model_fields)
    assert [word for word in known if f"`{word}`" not in page] == []
