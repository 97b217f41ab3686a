"""Terms of a loss and their gradients for a part of a batch: as it stands, or on a GPU recorded once and replayed."""

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from pipeline_lib import device
from pipeline_lib.config.models import Run
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.layers import Masks
from pipeline_lib.networks.precision import Halved
from pipeline_lib.objectives import Batch, Objective
from pipeline_lib.parallel import as_they_lie
from pipeline_lib.training import dropout

FIRST = 2  # steps of a plan that are run as they stand, so that libraries choose their kernels, before one is recorded
ALIGNED = 64  # weights; what copies several at once looks where each begins
MOST = 16  # recordings; they share the memory of activations, but each has gradients of its own
log = logging.getLogger(__name__)


@dataclass
class Part:
    """What a part of a batch gives: its share of the loss and of each term, and what the objective shall remember."""

    shown: dict[str, Tensor]
    seen: Tensor | None


class Gradients:
    """Adds to the gradients of a denoiser's network; `called` counts the images that have gone through it."""

    def __init__(self, run: Run, objective: Objective, denoiser: Denoiser, masks: dropout.Part | None = None) -> None:
        """`masks`: dropout that is told of the part that it is given, so that a batch can be cut."""
        self.run, self.objective, self.denoiser, self.shared = run, objective, denoiser, masks
        self.called = 0
        self.weights = list(denoiser.network.parameters())
        self.recorded = 0  # steps that were replayed

    def held(self) -> list[Tensor]:
        """The tensors that hold the gradients of this step."""
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def begin(self) -> None:
        """A new step."""
        if not (self.denoiser.training and self.denoiser.network.training):  # a grid was drawn
            self.denoiser.train()
        for weight in self.weights:
            weight.grad = None

    def forget(self) -> None:
        """Give back the memory of what is kept for the next part."""

    def facts(self) -> dict[str, object]:
        """How gradients are computed here."""
        return {"kernels": False, "bf16": self.denoiser.bf16, "recorded": self.recorded > 0}

    def add(self, batch: Batch, rows: range) -> Part:
        """Add the gradients of the loss on these rows of the global batch; the loss is a mean over all of it.

        Raises BadConfig where a term is no mean over parts.
        """
        self._seed_dropout(batch, rows)
        shown, loss = self._terms(replace(batch, plan=self._plan(batch, rows)))
        with self._precise():
            loss.backward()
        return Part(shown, self._seen())

    def _seed_dropout(self, batch: Batch, rows: range) -> None:
        """Make the masks of these rows of the batch a function of seed, step and rows."""

        def word(first: int, sub: int = 0) -> int:
            return int(batch.noise.words(Stream.DROPOUT, torch.tensor([first]), batch.step, 1, sub))

        if self.shared:
            self.shared.begin(rows, seed=word(0), own=word(rows.start, sub=1))
        elif self.run.network["dropout"]:
            torch.manual_seed(word(rows.start))

    def _plan(self, batch: Batch, rows: range) -> Hashable:
        """What the objective plans for this batch, None where it plans nothing."""
        if not hasattr(self.objective, "plan"):
            return None
        host = replace(batch, noise=Noise(batch.noise.seed), index=torch.arange(rows.start, rows.stop))
        return self.objective.plan(self.denoiser.path, host)

    def _terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The part's share of the loss and of each term, without gradients, and the loss."""
        share = len(batch.x0) / self.run.training.batch_size
        counting = self.denoiser.network.register_forward_pre_hook(self._count)
        try:
            values = self.objective.terms(self.denoiser, batch)
        finally:
            counting.remove()
        terms = {name: share * self._mean(name, value, len(batch.x0)) for name, value in values.items()}
        loss = torch.stack([self.objective.weights[name] * value for name, value in terms.items()]).sum()
        return {"loss": loss.detach(), **{f"loss/{name}": value.detach() for name, value in terms.items()}}, loss

    def _mean(self, name: str, values: Tensor, rows: int) -> Tensor:
        """Mean of a term over a part of the batch."""
        if values.ndim != 1:
            raise BadConfig(
                f"the term '{name}' has shape {list(values.shape)}; an objective gives one value per image or per "
                "group."
            )
        group = self.run.training.mmd_group or 1
        if rows < self.run.training.batch_size and len(values) not in (rows, rows // group):
            raise BadConfig(
                f"the term '{name}' has {len(values)} values for {rows} images, so it is no mean over the parts "
                "of a batch: set runtime.processes to 1 and runtime.micro_batch to null."
            )
        return values.mean()

    def _precise(self) -> AbstractContextManager[None]:
        exact = getattr(self.objective, "full_float32", False)
        return device.full_float32(self.weights[0].device.type) if exact else nullcontext()

    def _seen(self) -> Tensor | None:
        return self.objective.seen() if hasattr(self.objective, "seen") else None

    def _count(self, network: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        """Before a call of the network: one more for each image that it is given."""
        self.called += len(given[0])


@dataclass
class Given:
    """Gradients of a part beside the sums that they go to: the places of their weights, and groups of one dtype.

    Lists of tensors of one dtype and layout are copied by a few kernels; others by one kernel a tensor.
    """

    places: list[int]
    groups: list[tuple[list[Tensor], list[Tensor]]]


@dataclass
class Recording:
    """A CUDA graph of a part's terms and gradients, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    part: Part
    given: Given
    called: int

    def replay(self, batch: Batch) -> Part:
        """The part of another batch; `given` are then its gradients."""
        self.batch.x0.copy_(batch.x0)
        self.batch.index.copy_(batch.index)
        if self.batch.labels is not None and batch.labels is not None:
            self.batch.labels.copy_(batch.labels)
        assert isinstance(self.batch.step, Tensor)
        self.batch.step.fill_(batch.step)
        self.graph.replay()
        seen = self.part.seen
        return Part({k: v.clone() for k, v in self.part.shown.items()}, None if seen is None else seen.clone())


class Replayed(Gradients):
    """On a GPU with our own kernels: in bfloat16 from copies of the weights, and each plan recorded once.

    At 35.7M parameters and 128 images a step as it stands waits for the host to launch some 2,000 operations.
    """

    def __init__(self, run: Run, objective: Objective, denoiser: Denoiser) -> None:
        super().__init__(run, objective, denoiser)
        where = self.weights[0].device
        denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.halved = Halved(denoiser.network) if device.halves(run.training.precision, where) else None
        if self.halved:
            self.denoiser = Denoiser(self.halved.network, denoiser.path, denoiser.config, bf16=True)
        self.masks = Masks(self.denoiser.network, where)
        self.of_network = list(self.denoiser.network.parameters())  # in the order of `weights`
        self.flat, self.sums = _in_one_piece(self.weights)
        self.recordings: dict[Hashable, Recording] = {}
        self.used: Counter[Hashable] = Counter()
        self.pool, self.records, self.fresh = torch.cuda.graph_pool_handle(), hasattr(objective, "plan"), True

    def held(self) -> list[Tensor]:
        """As `Gradients.held`: one, which processes add up without a copy."""
        return [self.flat]

    def begin(self) -> None:
        """A new step."""
        super().begin()
        self.fresh = True

    def forget(self) -> None:
        """As `Gradients.forget`."""
        self.recordings.clear()
        self.records = hasattr(self.objective, "plan")  # in a smaller part there may be room for it
        torch.cuda.empty_cache()

    def facts(self) -> dict[str, object]:
        """As `Gradients.facts`."""
        return {**super().facts(), "kernels": True}

    def add(self, batch: Batch, rows: range) -> Part:
        """As `Gradients.add`."""
        batch = replace(batch, plan=self._plan(batch, rows))
        key = len(rows), batch.plan
        if self.records and key not in self.recordings and self.used[key] >= FIRST and len(self.recordings) < MOST:
            self._record(key, batch)
        self.used[key] += 1
        if recording := self.recordings.get(key):
            part, given = recording.replay(batch), recording.given
            self.called += recording.called
            self.recorded += 1
        else:
            part, gradients = self._differentiated(batch)
            given = self._given(gradients)
        self._take(given)
        return part

    def _differentiated(self, batch: Batch) -> tuple[Part, tuple[Tensor | None, ...]]:
        word = batch.noise.words(Stream.DROPOUT, torch.zeros_like(batch.index[:1]), batch.step, 1)[0]
        self.masks.begin(word, batch.index[:1])
        if self.halved:
            self.halved.refresh()
        shown, loss = self._terms(batch)
        with self._precise():
            gradients = torch.autograd.grad(loss, self.of_network, allow_unused=True)
        return Part(shown, self._seen()), gradients

    def _record(self, key: Hashable, batch: Batch) -> None:
        """Record the step of a plan. Where the GPU or the objective does not allow it, steps go on as they are."""
        labels = None if batch.labels is None else batch.labels.clone()
        step = torch.zeros(1, dtype=torch.int64, device=batch.x0.device)
        own = replace(batch, x0=batch.x0.clone(), index=batch.index.clone(), labels=labels, step=step)
        before = self.called
        made = device.recorded(lambda: self._differentiated(own), "a training step", self.pool)
        self.records = made is not None
        if made:
            graph, (part, gradients) = made
            self.recordings[key] = Recording(graph, own, part, self._given(gradients), self.called - before)
            if len(self.recordings) == MOST:
                log.info("%d kinds of steps are recorded; others run as they stand, and take longer.", MOST)
        self.called = before

    def _take(self, given: "Given") -> None:
        """Copy gradients to the weights', or add them to those of the parts before."""
        for i in given.places:
            weight, total = self.weights[i], self.sums[i]
            if weight.grad is None:
                weight.grad = total if self.fresh else total.zero_()
        for own, new in given.groups:
            if self.fresh:
                torch._foreach_copy_(own, new)
            else:
                torch._foreach_add_(own, new)
        self.fresh = False

    def _given(self, gradients: Sequence[Tensor | None]) -> "Given":
        """Gradients beside the sums that they go to."""
        places = [i for i, gradient in enumerate(gradients) if gradient is not None]
        groups: dict[tuple[torch.dtype, int], tuple[list[Tensor], list[Tensor]]] = {}
        for i in places:
            new = gradients[i]
            assert new is not None
            try:
                pair = as_they_lie(self.sums[i], new)
            except RuntimeError:  # it lies otherwise
                pair = self.sums[i], new
            own, others = groups.setdefault((new.dtype, pair[0].ndim), ([], []))
            own.append(pair[0])
            others.append(pair[1])
        return Given(places, [*groups.values()])


def _in_one_piece(weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Zeros (n,), and in them a tensor for each weight that lies as the weight does."""
    starts = [0, *accumulate(-(-weight.numel() // ALIGNED) * ALIGNED for weight in weights)]
    flat = torch.zeros(starts[-1], device=weights[0].device)
    places = zip(weights, starts[:-1], strict=True)
    return flat, [flat.as_strided(weight.shape, weight.stride(), start) for weight, start in places]


def gradients(
    run: Run, objective: Objective, denoiser: Denoiser, where: torch.device, masks: dropout.Part | None = None
) -> Gradients:
    """The fastest way that the device allows."""
    device.use(run.training.precision)
    if where.type == "cuda" and device.has_kernels():
        return Replayed(run, objective, denoiser)
    denoiser.bf16 = device.halves(run.training.precision, where)
    return Gradients(run, objective, denoiser, masks)
