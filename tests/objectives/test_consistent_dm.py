"""The consistency term: its expectation, the order of its bias, its chains against the released ones, its options."""

from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss

from pipeline_lib.analytic import kit
from pipeline_lib.analytic.mixtures import gaussian, mixture
from pipeline_lib.analytic.oracle import Oracle
from pipeline_lib.config.base import parse
from pipeline_lib.config.models import Diffusion, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Prediction
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.diffusion.transitions import VARIANCES, Transitions
from pipeline_lib.exits import BadConfig
from pipeline_lib.objectives import Batch, consistent_dm, ddpm, edm
from pipeline_lib.objectives.consistent_dm import Options
from tests.objectives import closed_forms
from tests.objectives.test_ddpm_reg import DOCS, FULL, differences, planned

DATA = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
PROBLEM = kit.Problem(paths.build(Diffusion(timesteps=30)), DATA, "x0")
EDM = paths.build(Diffusion(path="edm"))


def erring() -> kit.Affine:
    affine = PROBLEM.optimum()
    with torch.no_grad():
        affine.gain *= torch.linspace(0.6, 1.2, 31)[:, None, None]
        affine.offset += 0.3 * torch.linspace(-1, 1, 31)[:, None]
    return affine


def mean_consistency(options: Options, affine: kit.Affine, batches: int = 15) -> tuple[float, float]:
    """Mean of the term over draws, and its standard error."""
    objective = consistent_dm.build(options)
    with torch.no_grad():
        drawn = [objective.terms(affine, PROBLEM.batch(6000, i))["consistency"] for i in range(batches)]
    values = torch.cat(drawn).double()
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def expected(options: Options, affine: kit.Affine) -> tuple[float, float]:
    """Closed form of the term, and of what one noise for both chains would add: means over t."""
    found = [closed_forms.inconsistency(options, affine, PROBLEM, t) for t in range(1, 31)]
    return sum(v for v, _ in found) / 30, sum(e for _, e in found) / 30


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
@pytest.mark.parametrize("weighting", ["none", "snr/(snr+1)"])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_product_is_unbiased(steps: int, weighting: str, variance: str) -> None:
    options = Options(chain_steps=steps, consistency_weighting=weighting, variance=variance)
    truth, _ = expected(options, erring())
    mean, error = mean_consistency(options, erring())
    assert mean == pytest.approx(truth, abs=4 * error)
    assert error < 0.05 * truth


def test_one_noise_for_both_chains_would_add_the_variance() -> None:
    class OneNoise(Noise):
        def normal(self, stream: Stream, index: torch.Tensor, step: int, shape: Any, sub: int = 0) -> torch.Tensor:
            return super().normal(stream, index, step, shape, sub // 2 if stream is Stream.CHAIN else sub)

    options, affine = Options(chain_steps=4), PROBLEM.optimum()
    batches = [PROBLEM.batch(6000, i) for i in range(5)]
    same = [Batch(b.x0, None, b.index, b.step, None, OneNoise(0)) for b in batches]
    with torch.no_grad():
        values = torch.cat([consistent_dm.build(options).terms(affine, b)["consistency"] for b in same])
    truth, added = expected(options, affine)
    assert float(values.min()) >= 0
    assert float(values.mean()) == pytest.approx(truth + added, rel=0.03)
    assert abs(mean_consistency(options, affine)[0]) < 0.1 * added


def test_ancestral_steps_keep_the_exact_mean_of_gaussian_data() -> None:
    """Their mean is exact whatever the step, and the denoiser is affine: nothing is left but noise around 0."""
    options = Options(chain_steps=4)
    assert expected(options, PROBLEM.optimum())[0] < 1e-10
    mean, error = mean_consistency(options, PROBLEM.optimum())
    assert abs(mean) < 4 * error
    assert error < 1e-3


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
def test_on_a_mixture_the_term_falls_as_the_step_size_squared(variance: str) -> None:
    """The exact denoiser of a mixture is no affine function, so the reverse variance matters: wrong by the step
    squared in each step, by the step in a chain of fixed length, and that once more squared in the product."""
    data = mixture(torch.tensor([0.25, 0.75]), torch.tensor([[-0.8], [0.5]]), torch.tensor([[[0.04]], [[0.02]]]))
    terms = []
    for steps in (1, 2, 4):
        path = paths.build_vp(Diffusion(timesteps=40 * steps))
        nodes, weights = (torch.tensor(v) for v in hermegauss(11))
        z = torch.cartesian_prod(*[nodes] * steps).reshape(-1, steps).float()
        weight = torch.cartesian_prod(*[weights] * steps).reshape(-1, steps).prod(1) / (2 * torch.pi) ** (steps / 2)
        x = torch.full((len(z), 1, 1, 1), 0.1)
        t = torch.full((len(z),), 16.0 * steps)
        oracle = Oracle(path, data)
        first = oracle(x, t).x0
        transitions = Transitions(path, VARIANCES[variance])
        length = torch.full((len(z),), steps)

        def normal(left: int, z: torch.Tensor = z) -> torch.Tensor:
            return z[:, left - 1, None, None, None]

        ends = consistent_dm.ancestral(oracle, x, first, t, length, int(length.max()), transitions, normal, None)
        after = oracle(ends, t - length).x0.flatten().double()
        terms.append(float((weight * (after - first.flatten().double())).sum()) ** 2)
    assert terms[0] > 1e-9
    assert terms[0] / terms[1] == pytest.approx(4, rel=0.25)
    assert terms[1] / terms[2] == pytest.approx(4, rel=0.15)


def test_a_planted_constant_error_shows_as_predicted() -> None:
    """D off by 0.2 at t = k alone, chains of one step: from k + 1 it shows in D_1, from k in D_0 and in the chain."""
    k, error, options = 12, 0.2, Options(chain_steps=1)
    affine = PROBLEM.optimum()
    with torch.no_grad():
        affine.offset[k] += error
    step = next(s for s in PROBLEM.path.grid(30) if s.t == k)
    after = closed_forms.predicted_x0(affine, k - 1)[0]
    shift = torch.full((2,), error, dtype=torch.float64)
    predicted = {k + 1: error**2, k: float((step.c_x0 * after @ shift - shift).square().mean())}
    for t in range(2, 31):
        found, _ = closed_forms.inconsistency(options, affine, PROBLEM, t)
        assert found == pytest.approx(predicted.get(t, 0.0), abs=1e-6)
    mean, spread = mean_consistency(options, affine)
    assert mean == pytest.approx(sum(predicted.values()) / 30, abs=4 * spread)
    assert spread < 0.1 * mean


def test_the_exact_denoiser_is_stationary_and_training_ends_there() -> None:
    objective = consistent_dm.build(Options(chain_steps=3, lambda_consistency=2.5))
    scores = kit.gradient_scores(objective, PROBLEM.optimum(), PROBLEM, 12)
    assert float(scores.abs().max()) < 4.5  # 180 weights
    assert float(scores.square().mean()) < 2
    assert float(kit.gradient_scores(objective, erring(), PROBLEM, 8).abs().max()) > 8
    fitted, best = kit.fit(objective, PROBLEM, 200), PROBLEM.simple_loss(PROBLEM.optimum())
    untrained = PROBLEM.simple_loss(kit.Affine(PROBLEM.path, "x0", 2)) - best
    assert 0 <= PROBLEM.simple_loss(fitted) - best < 3e-2 * untrained


class Normal:
    """The exact denoiser of N(0.3, variance) data in every pixel on the EDM path, scaled by `slope`."""

    path = EDM

    def __init__(self, variance: float = 0.25, slope: float = 1.0) -> None:
        self.variance, self.slope, self.calls = variance, slope, []

    def gain(self, sigma: torch.Tensor) -> torch.Tensor:
        return self.slope * self.variance / (self.variance + sigma**2)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> Prediction:
        self.calls.append((x, t, labels))
        a, s = (c[:, None, None, None].to(x) for c in EDM.coefficients(t))
        return Prediction(x, a, s, 0.3 + self.gain(s) * (x - 0.3), "x0")


def images(count: int, step: int = 0, labels: torch.Tensor | None = None) -> Batch:
    """N(0.3, 0.25) in two pixels."""
    x0 = 0.3 + 0.5 * torch.randn(count, 1, 1, 2, generator=torch.Generator().manual_seed(step))
    return Batch(x0, labels, torch.arange(count), step, None, Noise(0))


def test_on_edm_the_term_is_that_of_the_released_code() -> None:
    """Written again, from the noise of the same draws: the grid, the Euler steps, the product, no weight."""
    batch, denoiser = images(50), Normal(slope=0.8)
    sigma, eps = EDM.draw_times(batch.uniform(Stream.TIME)), batch.normal(Stream.NOISE)
    s0 = sigma[:, None, None, None].double()
    x = batch.x0.double() + s0 * eps.double()

    def denoised(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return denoiser(x, s.flatten()).x0

    end = torch.maximum(s0 - 0.05 * batch.uniform(Stream.SPAN)[:, None, None, None].double(), torch.tensor(0.002))
    levels = [(s0 ** (1 / 7) + i / 5 * (end ** (1 / 7) - s0 ** (1 / 7))) ** 7 for i in range(6)]
    seen = []
    for chain in (0, 1):
        y = x
        for i in range(5):
            s, after = levels[i], levels[i + 1]
            slope = (y - denoised(y, s)) / s
            z = batch.normal(Stream.CHAIN, 2 * (5 - i) + chain)
            y = y + 2 * (after - s) * slope + (2 * (s - after) * s).sqrt() * z
        seen.append(denoised(y, end) - denoised(x, s0))
    terms = consistent_dm.build(Options()).terms(denoiser, batch)
    assert torch.allclose(terms["consistency"].double(), (seen[0] * seen[1]).mean((1, 2, 3)), rtol=1e-3, atol=1e-6)
    weight = (s0**2 + 0.25) / (0.5 * s0) ** 2
    loss = (weight * (denoised(x, s0) - batch.x0) ** 2).mean((1, 2, 3))
    assert torch.allclose(terms["simple"].double(), loss, rtol=1e-4)


def left_over(steps: int, sigma: float, end: float, denoiser: Normal, code: bool) -> float:
    """E[D_1 | x] - D_0 per unit of x - 0.3: by the chain without noise, or as the product of its factors."""
    s, u = torch.tensor([sigma], dtype=torch.float64), torch.tensor([end], dtype=torch.float64)
    x = torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64)
    first = 0.3 + denoiser.gain(s) * (x - 0.3)
    if code:
        y = consistent_dm.euler(denoiser, x, first, s, u, steps, 7.0, lambda left: torch.zeros_like(x), None)
        return float(0.3 + denoiser.gain(u) * (y - 0.3) - first)
    levels = [(s ** (1 / 7) + i / steps * (u ** (1 / 7) - s ** (1 / 7))) ** 7 for i in range(steps + 1)]
    factor = torch.ones(1, dtype=torch.float64)
    for before, after in pairwise(levels):
        factor = factor * (1 + 2 * (after - before) / before * (1 - denoiser.gain(before)))
    return float(denoiser.gain(u) * factor - denoiser.gain(s))


@pytest.mark.parametrize("sigma", [0.06, 0.3, 2.0])
def test_on_edm_the_term_of_the_exact_denoiser_falls_as_the_step_size_squared(sigma: float) -> None:
    """Euler steps have a bias of the step size; its square is what is left, so 5 steps do not give 0."""
    exact = Normal()
    squares = [left_over(n, sigma, sigma - 0.04, exact, code=True) ** 2 for n in (5, 10, 20, 40)]
    closed = [left_over(n, sigma, sigma - 0.04, exact, code=False) ** 2 for n in (5, 10, 20, 40)]
    assert squares == pytest.approx(closed, rel=2e-2)
    assert closed[2] / closed[3] == pytest.approx(4, rel=0.1)
    assert closed[0] > 1e-13


def test_on_edm_the_product_is_unbiased() -> None:
    """The mean square of what the chain without noise leaves, at the sigma of every draw."""
    denoiser, found, truth = Normal(slope=0.7), [], []
    objective = consistent_dm.build(Options(sigma_span=0.5))
    for step in range(4):
        batch = images(20_000, step)
        found.append(objective.terms(denoiser, batch)["consistency"])
        s = EDM.draw_times(batch.uniform(Stream.TIME)).double()
        u = (s - 0.5 * batch.uniform(Stream.SPAN)).clamp(min=0.002).minimum(s)
        levels = [(s ** (1 / 7) + i / 5 * (u ** (1 / 7) - s ** (1 / 7))) ** 7 for i in range(6)]
        factor = torch.ones_like(s)
        for before, after in pairwise(levels):
            factor = factor * (1 + 2 * (after - before) / before * (1 - denoiser.gain(before)))
        truth.append((denoiser.gain(u) * factor - denoiser.gain(s)) ** 2 * (0.25 + s**2))
    difference = torch.cat(found).double() - torch.cat(truth)
    error = float(difference.std() / sqrt(len(difference)))
    assert abs(float(difference.mean())) < 4 * error
    assert error < 0.05 * float(torch.cat(truth).mean())


def test_sigma_below_the_floor_stays_where_it_is() -> None:
    batch, denoiser = images(4), Normal()
    sigma = torch.full((4,), 0.001)
    with torch.no_grad():
        predicted = denoiser(batch.x0, sigma)
        ends, end = consistent_dm.build(Options()).chains(denoiser, batch, predicted, sigma)
    assert torch.equal(end, sigma.repeat(2))
    assert torch.equal(ends, batch.x0.repeat(2, 1, 1, 1))


def test_calls_of_the_network() -> None:
    """1 + 2 with gradient, 2 (n - 1) without, in n + 1 calls; both chains are given the labels."""
    labels, denoiser = torch.arange(8), Normal()
    consistent_dm.build(Options()).terms(denoiser, images(8, labels=labels))
    assert [len(x) for x, _, _ in denoiser.calls] == [8] + [16] * 5
    assert all(torch.equal(seen, labels.repeat(len(x) // 8)) for x, _, seen in denoiser.calls)


class Augmented(Normal):
    """Answers otherwise where it is told of an augmentation, and remembers who told it."""

    def __init__(self) -> None:
        super().__init__(slope=0.8)
        self.told: list[torch.Tensor | None] = []
        self.config = EDM.config

    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None, augment: torch.Tensor | None = None
    ) -> Prediction:
        self.told.append(augment)
        found = super().__call__(x, t, labels)
        return found if augment is None else found.with_x0(found.x0 + 0.1 * augment.sum(1)[:, None, None, None])


def square(count: int) -> Batch:
    x0 = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(x0, None, torch.arange(count), 0, None, Noise(0))


def test_images_are_augmented_as_those_of_the_control() -> None:
    """The same images with the same labels, and so the same base loss, with the norm of the control."""
    batch, ours, control = square(8), Augmented(), Augmented()
    expected = edm.build(edm.Options(augment=0.5, norm="sum")).terms(control, batch)["denoising"]
    terms = consistent_dm.build(Options(augment=0.5, norm="sum")).terms(ours, batch)
    assert torch.equal(terms["simple"], expected)
    assert torch.equal(ours.told[0], control.told[0])


@pytest.mark.parametrize("told", [True, False])
def test_chains_are_told_of_the_augmentation_or_not(told: bool) -> None:
    """D_0, D_1 and D_2 always are. Chains that are not begin with a prediction of their own, shared by both."""
    denoiser, batch = Augmented(), square(8)
    objective = consistent_dm.build(Options(augment=0.5, chains_told=told))
    objective.terms(denoiser, batch)
    first, *chains, last = denoiser.told
    assert first is not None
    assert torch.equal(last, first.repeat(2, 1))
    assert [len(x) for x, _, _ in denoiser.calls] == [8, *([] if told else [8]), 16, 16, 16, 16, 16]
    assert all((seen is not None) == told for seen in chains)


def test_both_terms_are_sums_or_both_are_means() -> None:
    """lambda weighs one beside the other, so it may not change with the size of the images."""
    batch, denoiser = images(50), Normal(slope=0.8)
    mean, total = (consistent_dm.build(Options(norm=norm)).terms(denoiser, batch) for norm in ("mean", "sum"))
    assert all(torch.allclose(2 * mean[name], total[name]) for name in ("simple", "consistency"))  # two pixels


def test_the_gradient_reaches_the_predictions_and_not_the_chains() -> None:
    affine = erring()
    batch = PROBLEM.batch(1, 0)
    t = int(PROBLEM.path.draw_times(batch.uniform(Stream.TIME)))
    assert t > 5
    consistent_dm.build(Options(chain_steps=4)).terms(affine, batch)["consistency"].sum().backward()
    assert affine.gain.grad.abs().sum((1, 2)).nonzero().flatten().tolist() == [t - 4, t]


def test_the_simple_loss_is_that_of_the_control() -> None:
    batch = PROBLEM.batch(50, 3)
    ours = consistent_dm.build(Options(norm="sum")).terms(erring(), batch)["simple"]
    assert torch.equal(ours, ddpm.build(ddpm.Options(norm="sum")).terms(erring(), batch)["simple"])


def test_an_image_does_not_depend_on_the_rest_of_the_batch() -> None:
    whole, objective = PROBLEM.batch(12, 3), consistent_dm.build(Options())
    part = Batch(whole.x0[6:], None, whole.index[6:], 3, None, whole.noise)
    together, alone = (objective.terms(erring(), b)["consistency"] for b in (whole, part))
    assert torch.allclose(together[6:], alone, rtol=1e-4, atol=1e-7)


def run_of(diffusion: dict[str, Any]) -> Run:
    return parse(Run, {"objective": "consistent-dm", "diffusion": {"timesteps": 100, **diffusion}})


TOLD = {**FULL, "network": {"name": "songunet", "augment": True}}  # a network that can be told of the augmentation
ON_EDM = {"path": "edm", "prediction": "edm"}


@pytest.mark.parametrize(
    ("options", "diffusion", "sentence"),
    [
        ({"chain_steps": 100}, {}, "chain_steps is 100, but from t = 100 .* only 99 steps lead down to t = 1"),
        ({"sigma_span": 80}, ON_EDM, "sigma_span is 80, .*sigma_max 80"),
        ({"weighting": "snr/(snr+1)"}, ON_EDM, "weighting is for path vp"),
        ({"augment": 0.1}, {}, "augment is for path edm"),
        ({"augment": 0.1}, ON_EDM, "the network is not told of it; set network.augment"),
        ({"consistency_weighting": "snr/(snr+1)"}, ON_EDM, "consistency_weighting is for path vp"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], diffusion: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=f"^methods.x.variants.y: .*{sentence}.*\\.$"):
        consistent_dm.check(Options(**options), run_of(diffusion), "methods.x.variants.y")


def test_what_fits_is_accepted() -> None:
    consistent_dm.check(Options(chain_steps=99), run_of({}), "here")
    consistent_dm.check(Options(chain_steps=200), run_of(ON_EDM), "here")


@pytest.mark.parametrize(("option", "value"), [("lambda_consistency", -1), ("chain_steps", 0), ("sigma_span", 0)])
def test_an_option_out_of_range_is_one_sentence(option: str, value: float) -> None:
    with pytest.raises(BadConfig, match=rf"^objective.{option}: input should be .*\.$"):
        parse(Run, {"objective": {"name": "consistent-dm", option: value}})


def test_paper_differs_from_its_control_in_the_term_alone() -> None:
    found = differences(planned("ddpm", "paper"), planned("consistent-dm", "paper"))
    own = set(Options.model_fields) - {"norm", "weighting"}
    assert set(found) == {"objective.name"} | {f"objective.{name}" for name in own}


def test_released_differs_from_its_control_in_the_term_alone() -> None:
    found = differences(planned("edm", "paper", TOLD), planned("consistent-dm", "released", TOLD))
    own = set(Options.model_fields) - {"norm", "augment"}
    assert set(found) == {"objective.name"} | {f"objective.{name}" for name in own}


def test_the_presets_differ_in_this_and_nothing_else() -> None:
    assert differences(planned("consistent-dm", "paper", TOLD), planned("consistent-dm", "released", TOLD)) == {
        "diffusion.path": ("vp", "edm"),
        "diffusion.prediction": ("eps", "edm"),
        "network.dropout": (0.1, 0.13),
        "objective.norm": ("mean", "sum"),
        "objective.augment": (0.0, 0.12),
        "objective.chains_told": (True, False),
        "objective.lambda_consistency": (2.5, 10.0),
        "objective.consistency_weighting": ("snr/(snr+1)", "none"),
        "training.steps": (800_000, 390_625),
        "training.lr": (2e-4, 1e-3),
        "training.warmup_steps": (5000, 19_531),
        "training.grad_clip": (1.0, None),
        "training.ema_halflife_images": (None, 500_000),
        "training.ema_warmup": (False, True),
        "training.flip": (True, False),
    }


def test_the_docs_page_names_every_option_and_preset() -> None:
    page = (DOCS / "consistent-dm.md").read_text()
    known = set(consistent_dm.PRESETS) | set(Options.model_fields)
    assert [word for word in known if f"`{word}`" not in page] == []
