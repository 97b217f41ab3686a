"""The sampling grid: which times are visited, in what order, by which transition."""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Step:
    """The transition from time t to the next, smaller time u of a grid, for x_t = a x_0 + s eps. Float64 scalars, or
    tensors where each image of a batch has its own.

    q(x_u | x_t, x_0) = N(c_x0 x_0 + c_xt x_t, posterior_variance I), which is Eq. 6-7 of Ho et al. (2020) for a VP
    path whose steps are all visited, and holds for every Gaussian path and every pair u < t.
    """

    index: int
    t: float
    t_next: float
    a: float
    s: float
    a_next: float
    s_next: float

    @property
    def is_last(self) -> bool:
        """Whether the step ends at clean data, where no noise is added."""
        return isinstance(self.s_next, float) and self.s_next == 0

    @property
    def forward_variance(self) -> float:
        """Variance of q(x_t | x_u); beta_t where u = t - 1 on a VP path."""
        return self.s**2 - (self.a / self.a_next * self.s_next) ** 2

    @property
    def posterior_variance(self) -> float:
        """Variance of q(x_u | x_t, x_0); beta~_t of DDPM."""
        return self.forward_variance * self.s_next**2 / self.s**2

    @property
    def c_x0(self) -> float:
        """Weight of x_0 in the posterior mean."""
        return self.a_next * self.forward_variance / self.s**2

    @property
    def c_xt(self) -> float:
        """Weight of x_t in the posterior mean."""
        return self.a / self.a_next * self.s_next**2 / self.s**2


@dataclass(frozen=True)
class Grid:
    """Times from the noise end down to clean data (t = 0), with a and s at each: n + 1 times for n steps.

    Step i reads times[i] and writes times[i + 1]; the network is called once per step, at times[i]. Iterating goes from
    step `first` to the step before `end` (None: to the last one).
    """

    times: tuple[float, ...]
    a: tuple[float, ...]
    s: tuple[float, ...]
    first: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if len({len(self.times), len(self.a), len(self.s)}) > 1 or len(self.times) < 2:
            raise ValueError("a grid needs at least two times, and a and s at each")
        if any(later >= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise ValueError("the times of a grid must decrease")
        if self.times[-1] != 0 or self.s[-1] != 0:
            raise ValueError("a grid ends at t = 0, where x_t is clean data")

    def __len__(self) -> int:
        return len(self.times) - 1

    def __iter__(self) -> Iterator[Step]:
        return (self.step(i) for i in range(len(self))[self.first : self.end])

    def step(self, i: int) -> Step:
        """The transition from times[i] to times[i + 1]."""
        return Step(i, self.times[i], self.times[i + 1], self.a[i], self.s[i], self.a[i + 1], self.s[i + 1])

    def below(self, place: int) -> "Grid":
        """The grid from times[place] down."""
        return Grid(self.times[place:], self.a[place:], self.s[place:])

    def part(self, first: int, end: int | None = None) -> "Grid":
        """The same grid, of which only the steps from `first` to the one before `end` are made: they keep their
        numbers, and the grid its length, on which factors of corrections and amounts of noise depend."""
        return replace(self, first=first, end=end)
