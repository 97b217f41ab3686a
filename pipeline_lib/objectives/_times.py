"""Training times by loss: Nichol and Dhariwal (2021), Eq. 18."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HISTORY = 10  # losses that are remembered at each t [found: released code]
UNIFORM = 0.001  # share of the draws that is uniform [found: released code]


class LossSecondMoment:
    """Draws t in proportion to the root mean square of the last losses at t, once every t has a full history.

    Until then t is uniform. Losses count in the order of the batch, those of a batch all at once. Nothing here waits
    for the device.
    """

    def __init__(self) -> None:
        self.losses: Tensor | None = None  # (T + 1, HISTORY): the last losses at t, in no order; row 0 is of no t
        self.seen: Tensor | None = None  # (T + 1,): losses seen at t so far

    def probabilities(self, timesteps: int, u: Tensor) -> Tensor:
        """P(t) (T,) for t in {1..T}, float64, on the device of `u`."""
        import torch

        if self.losses is None or self.seen is None:
            self.losses = torch.zeros(timesteps + 1, HISTORY, dtype=torch.float64, device=u.device)
            self.seen = torch.zeros(timesteps + 1, dtype=torch.int64, device=u.device)
        size = self.losses[1:].square().mean(1).sqrt()
        by_loss = (1 - UNIFORM) * size / size.sum() + UNIFORM / timesteps
        return torch.where((self.seen[1:] >= HISTORY).all(), by_loss, torch.full_like(size, 1 / timesteps))

    def draw(self, timesteps: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """t (B,) float32 from uniform numbers u (B,), and weights 1 / (T P(t)) that keep the mean over uniform t."""
        import torch

        p = self.probabilities(timesteps, u)
        place = torch.searchsorted(p.cumsum(0), u.double()).clamp(max=timesteps - 1)
        return (place + 1).to(torch.float32), (1 / (timesteps * p[place])).to(torch.float32)

    def record(self, t: Tensor, loss: Tensor) -> None:
        """Remember the losses (B,) at t (B,)."""
        import torch

        assert self.losses is not None, "times are drawn before their losses are known"
        assert self.seen is not None
        t = t.long()
        same = t[:, None] == t[None]
        before, after = same.tril(-1).sum(1), same.triu(1).sum(1)  # others of the batch at the same t
        row = torch.where(after < HISTORY, t, 0)  # of more than HISTORY the first are forgotten at once
        self.losses[row, (self.seen[t] + before) % HISTORY] = loss.double()
        self.seen.index_add_(0, t, torch.ones_like(t))

    def state(self) -> dict[str, Tensor]:
        """For the checkpoint; empty before the first draw."""
        if self.losses is None or self.seen is None:
            return {}
        return {"losses": self.losses, "seen": self.seen}

    def load(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        self.losses, self.seen = state.get("losses"), state.get("seen")
