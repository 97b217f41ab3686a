"""Every sampler on exact denoisers: laws of x_t, network calls, grids; and that each check can fail."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline_lib.analytic import exact, sampler_kit
from pipeline_lib.analytic.mixtures import gaussian
from pipeline_lib.analytic.oracle import Erring, Oracle
from pipeline_lib.config.models import Diffusion
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.grid import Grid, Step
from pipeline_lib.samplers import Sampler, ancestral, ddim

DATA = gaussian(
    torch.tensor([0.3, -0.2, 0.1]),
    torch.tensor([[0.05, 0.02, -0.01], [0.02, 0.03, 0.0], [-0.01, 0.0, 0.08]]),
)
PATHS = {
    "linear": paths.build(Diffusion(timesteps=100)),
    "cosine": paths.build(Diffusion(timesteps=100, schedule="cosine")),
    "edm": paths.build(Diffusion(path="edm")),
}
ERRORS = {"exact": (1.0, 0.0), "erring": (1.02, 0.03)}  # factor and shift of the predicted eps
SPACINGS = ["uniform", "leading", "trailing"]  # any number of steps
VARIANCES = ["fixed-small", "fixed-large"]
LARGEST = 4.5  # standard errors; of 9 moments at 13 places


def ancestral_update(variance: str) -> sampler_kit.Update:
    """By Bayes' rule from q(x_u | x_0) and q(x_t | x_u), not by the formulas of the grid."""

    def update(step: Step, denoiser: exact.Linear) -> sampler_kit.Affine:
        gain, offset = denoiser(step)
        if step.s_next == 0:
            return gain, offset, torch.zeros_like(gain)
        ratio = step.a / step.a_next
        forward = step.s**2 - (ratio * step.s_next) ** 2
        posterior = 1 / (1 / step.s_next**2 + ratio**2 / forward)
        of_x0, of_x = posterior * step.a_next / step.s_next**2, posterior * ratio / forward
        eye = torch.eye(len(gain), dtype=torch.float64)
        noise = posterior if variance == "fixed-small" else forward
        return of_x0 * gain + of_x * eye, of_x0 * offset, noise * eye

    return update


def ddim_update(eta: float) -> sampler_kit.Update:
    """By rotating eps: what of it is kept and what is drawn anew have together the variance s_u^2."""

    def update(step: Step, denoiser: exact.Linear) -> sampler_kit.Affine:
        gain, offset = denoiser(step)  # x_0 = gain x_t + offset
        eye = torch.eye(len(gain), dtype=torch.float64)
        ratio = step.a / step.a_next
        new = eta**2 * (step.s**2 - (ratio * step.s_next) ** 2) * (step.s_next / step.s) ** 2
        kept = (step.s_next**2 - new) ** 0.5 / step.s  # times (x_t - a x_0) is sqrt(s_u^2 - new) eps
        return (
            (step.a_next - kept * step.a) * gain + kept * eye,
            (step.a_next - kept * step.a) * offset,
            new * eye,
        )

    return update


def largest_score(
    sampler: Sampler,
    variance: str,
    path: str = "linear",
    spacing: str = "uniform",
    errors: str = "exact",
    nfe: int = 12,
) -> float:
    """Of the moments of x_t at every place of ancestral sampling, the one furthest from its law, in standard errors."""
    options = ancestral.Options(variance=variance)
    return furthest(sampler, options, ancestral_update(variance), path, spacing, errors, nfe)


def furthest(
    sampler: Sampler,
    options: object,
    update: sampler_kit.Update,
    path: str = "linear",
    spacing: str = "uniform",
    errors: str = "exact",
    nfe: int = 12,
) -> float:
    """Of the moments of x_t at every place, the one furthest from its law, in standard errors."""
    on, (scale, bias) = PATHS[path], ERRORS[errors]
    grid, denoiser = on.grid(nfe, spacing), Erring(Oracle(on, DATA), bias, scale)
    linear = exact.erring(exact.exact_denoiser(DATA), scale, bias)
    expected = sampler_kit.laws(exact.prior(on, 3), grid, linear, update)
    done = sampler_kit.trial(sampler, options, denoiser, grid, 3, 20_000)
    return float(sampler_kit.moment_scores(done, expected).abs().max())


def visits(sampler: Sampler, calls: sampler_kit.Calls = sampler_kit.once_per_step, path: str = "linear") -> list[str]:
    grid, denoiser = PATHS[path].grid(6), Oracle(PATHS[path], DATA)
    done = sampler_kit.trial(sampler, ancestral.Options(), denoiser, grid, 3, 5)
    return sampler_kit.visit_faults(done, calls)


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_ancestral_has_the_exact_law_at_every_place(variance: str, spacing: str, errors: str) -> None:
    assert largest_score(ancestral.sample, variance, spacing=spacing, errors=errors) < LARGEST


@pytest.mark.parametrize("path", ["cosine", "edm"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_ancestral_has_the_exact_law_on_other_paths(variance: str, path: str) -> None:
    assert largest_score(ancestral.sample, variance, path, errors="erring") < LARGEST


@pytest.mark.parametrize("variance", VARIANCES)
def test_ancestral_has_the_exact_law_over_all_steps_and_in_one(variance: str) -> None:
    assert largest_score(ancestral.sample, variance, nfe=100) < LARGEST + 0.5  # places 8 times as many
    assert largest_score(ancestral.sample, variance, nfe=1) < LARGEST


@pytest.mark.parametrize("path", PATHS)
def test_ancestral_calls_the_network_once_at_every_time(path: str) -> None:
    assert visits(ancestral.sample, path=path) == []


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_has_the_exact_law_at_every_place(eta: float, spacing: str, errors: str) -> None:
    found = furthest(ddim.sample, ddim.Options(eta=eta), ddim_update(eta), "linear", spacing, errors)
    assert found < LARGEST


@pytest.mark.parametrize("path", ["cosine", "edm"])
@pytest.mark.parametrize("eta", [0.0, 0.2])
def test_ddim_has_the_exact_law_on_other_paths(eta: float, path: str) -> None:
    assert furthest(ddim.sample, ddim.Options(eta=eta), ddim_update(eta), path, errors="erring") < LARGEST


def test_the_law_of_another_eta_is_told() -> None:
    """With 12 steps; with many, an exact denoiser leaves the same law at every eta."""
    assert furthest(ddim.sample, ddim.Options(eta=0.5), ddim_update(0.7), errors="erring") > 2 * LARGEST


def test_ddim_with_all_the_noise_is_ancestral_sampling() -> None:
    grid, denoiser = PATHS["cosine"].grid(9), Oracle(PATHS["cosine"], DATA)
    one = sampler_kit.trial(ddim.sample, ddim.Options(eta=1), denoiser, grid, 3, 50)
    other = sampler_kit.trial(ancestral.sample, ancestral.Options(variance="fixed-small"), denoiser, grid, 3, 50)
    for x, y in zip(one.x, other.x, strict=True):
        assert float((x - y).abs().max()) < 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_ddim_calls_the_network_once_at_every_time(path: str) -> None:
    done = sampler_kit.trial(ddim.sample, ddim.Options(), Oracle(PATHS[path], DATA), PATHS[path].grid(6), 3, 5)
    assert sampler_kit.visit_faults(done) == []


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_grids_visit_what_they_say(path: str, spacing: str) -> None:
    for nfe in (1, 2, 3, 7, 50, 99, 100):
        assert sampler_kit.grid_faults(PATHS[path], nfe, spacing) == []


def test_the_quadratic_grid_visits_what_it_says() -> None:
    for nfe in range(2, 10):
        assert sampler_kit.grid_faults(PATHS["linear"], nfe, "quadratic") == []


def test_the_grid_of_edm_visits_what_it_says() -> None:
    for nfe in (1, 2, 18):
        assert sampler_kit.grid_faults(PATHS["edm"], nfe, "uniform") == []


# What follows shows that each check can fail.


class On(Grid):
    """A grid whose steps are changed on the way to the sampler."""

    def changed(self, step: Step) -> Step:
        return step

    def __iter__(self) -> Iterator[Step]:
        return map(self.changed, super().__iter__())


def on(grid: Grid, kind: type[On]) -> On:
    return kind(grid.times, grid.a, grid.s)


class Late(On):
    """Calls the network one t too early, with the coefficients of the right one."""

    def changed(self, step: Step) -> Step:
        return replace(step, t=max(step.t - 1, 1))


class SameNoise(On):
    """Draws the noise of step 0 at every step."""

    def changed(self, step: Step) -> Step:
        return replace(step, index=0)


def with_grid(change: Callable[[Grid], Grid]) -> Sampler:
    """The ancestral sampler, given another grid than the one that it is compared with."""
    return lambda denoiser, grid, *rest, **more: ancestral.sample(denoiser, change(grid), *rest, **more)


def swapped(denoiser, grid, x, draw, options, **more) -> Tensor:
    """The other reverse variance."""
    other = {"fixed-small": "fixed-large", "fixed-large": "fixed-small"}[options.variance]
    return ancestral.sample(denoiser, grid, x, draw, ancestral.Options(variance=other), **more)


def noisy_end(denoiser, grid, x, draw, options, **more) -> Tensor:
    """Noise on clean data, as large as before the last step."""
    end = ancestral.sample(denoiser, grid, x, draw, options, **more)
    return end + grid.s[-2] * draw.normal(99, len(grid), x.shape[1:])


def twice(denoiser, grid, x, draw, options, **more) -> Tensor:
    """Two calls at every t."""

    def both(x, t, labels=None):
        denoiser(x, t, labels)
        return denoiser(x, t, labels)

    both.path = denoiser.path
    return ancestral.sample(both, grid, x, draw, options, **more)


def without_last(grid: Grid) -> Grid:
    """Ends where the last step would start, as if there were clean data."""
    return Grid((*grid.times[:-2], 0.0), (*grid.a[:-2], 1.0), (*grid.s[:-2], 0.0))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(
    "sampler",
    [swapped, noisy_end, with_grid(lambda g: on(g, Late)), with_grid(lambda g: on(g, SameNoise))],
    ids=["swapped variance", "noise at the end", "network at t - 1", "the same noise at every step"],
)
def test_a_wrong_sampler_does_not_have_the_law(sampler: Sampler, variance: str) -> None:
    assert largest_score(sampler, variance, spacing="trailing") > 2 * LARGEST  # whose last step is a long one


def test_a_posterior_variance_that_is_wrong_by_a_twentieth_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Step.posterior_variance.fget
    monkeypatch.setattr(Step, "posterior_variance", property(lambda step: 1.05 * right(step)))
    assert largest_score(ancestral.sample, "fixed-small") > LARGEST


@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        (with_grid(without_last), "the network was called at"),
        (with_grid(without_last), "the network saw 5 images per chain, not 6"),
        (with_grid(without_last), "the observer saw"),
        (with_grid(lambda g: on(g, Late)), "the observer saw"),
        (with_grid(lambda g: on(g, Late)), "a step does not end where the next one starts"),
        (twice, "the network saw 12 images per chain, not 6"),
    ],
)
def test_a_sampler_that_visits_other_times_is_told(sampler: Sampler, sentence: str) -> None:
    assert any(fault.startswith(sentence) for fault in visits(sampler))


def test_a_sampler_may_declare_more_calls() -> None:
    assert visits(twice, lambda grid: [t for t in grid.times[:-1] for _ in "12"]) == []


class Other(paths.VPPath):
    """A path with a wrong grid: `spoil` changes the times."""

    def __init__(self, spoil: Callable[[list[float]], list[float]], shift: float = 0.0) -> None:
        super().__init__(PATHS["linear"].alpha_bar)
        self.spoil, self.shift = spoil, shift

    def grid(self, nfe: int, spacing: str = "uniform") -> Grid:
        times = self.spoil(list(super().grid(nfe, spacing).times))
        a, s = self.coefficients(torch.tensor(times).round().clamp(0, 100))
        return Grid(tuple(times), tuple(x + self.shift for x in a.tolist()), tuple(s.tolist()))


@pytest.mark.parametrize(
    ("path", "spacing", "sentence"),
    [
        (Other(lambda t: [t[0], t[1] + 1, *t[2:]]), "quadratic", "the calls at [47.0] are not where"),
        (Other(lambda t: [t[0] + 19, *t[1:]]), "quadratic", "the calls at [100.0] are not where"),
        (Other(lambda t: t[1:]), "uniform", "the grid has 4 steps, not 5"),
        (Other(lambda t: t[1:]), "uniform", "the first call is at"),
        (Other(lambda t: [t[0] - 1, *t[1:]]), "uniform", "the first call is at 99, not at T = 100"),
        (Other(lambda t: [*t[:-2], 2.0, 0.0]), "uniform", "the last call is at 2, not at 1"),
        (Other(lambda t: [x + (0 < x < 50) for x in t]), "leading", "the last call is at 2, not at 1"),
        (Other(lambda t: [t[0] - 1, *t[1:]]), "trailing", "the first call is at 99, not at T = 100"),
        (Other(lambda t: [t[0] + 1, *t[1:]]), "uniform", "the path does not have these times, or not with the grid's"),
        (Other(lambda t: [t[0], t[1] + 0.5, *t[2:]]), "uniform", "the path does not have these times"),
        (Other(lambda t: t, shift=1e-4), "uniform", "the path does not have these times"),
    ],
)
def test_a_wrong_grid_is_told(path: Other, spacing: str, sentence: str) -> None:
    assert any(fault.startswith(sentence) for fault in sampler_kit.grid_faults(path, 5, spacing))
