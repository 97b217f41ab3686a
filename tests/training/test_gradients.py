"""Gradients of a part of a batch: what is planned on the host is what is done, and a recording gives the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.config.models import Run
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.device import has_kernels, plain
from pipeline_lib.diffusion.transitions import longer
from pipeline_lib.records.store import Manifest
from pipeline_lib.training.gradients import FIRST, Gradients, Replayed, _in_one_piece
from pipeline_lib.training.loop import Trainer
from pipeline_lib.training.train import objective
from tests.conftest import tiny_run

on_gpu = pytest.mark.skipif(not (torch.cuda.is_available() and has_kernels()), reason="needs a GPU with Triton")
REG = {"objective": {"name": "ddpm-reg", "bootstrap_length": 3}, "training": {"mmd_group": 8, "batch_size": 32}}
ADM = {
    "objective": {"name": "adm", "time_sampling": "loss-second-moment"},
    "diffusion": {"timesteps": 8, "learned_variance": True},
    "network": {"name": "adm", "channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "attention_resolutions": [4]},
}
EDM = {
    "objective": {"name": "edm", "augment": 0.5},
    "diffusion": {"path": "edm", "prediction": "edm"},
    "network": {"name": "songunet", "channels": 8, "channel_mult": [1, 2], "res_blocks": 1, "augment": True},
}
CASES: dict[str, dict[str, Any]] = {"ddpm": {}, "ddpm-ip": {"objective": {"name": "ddpm-ip"}}, "reg": REG}
GPU_CASES = {**CASES, "adm": ADM, "edm": EDM}


def trainer(data: Manifest, folder: str, where: str, **changes: Any) -> Trainer:
    run = Run.model_validate({k: v for k, v in tiny_run(**changes).items() if k != "seed"})
    Path(folder).mkdir()
    return Trainer(run, objective(run), Prepared(data), 0, Path(folder), torch.device(where))


@pytest.mark.parametrize("name", CASES)
def test_a_plan_changes_nothing(tiny_data: Manifest, name: str) -> None:
    """Terms with the plan that was made on the host, and without it, are equal to the bit."""
    one = trainer(tiny_data, "a", "cpu", **CASES[name])
    rows = range(one.run.training.batch_size)
    for step in range(5):
        batch = one.batches.at(step, rows)
        plan = one.gradients._plan(batch, rows)
        bare = one.objective.terms(one.denoiser, batch)
        planned = one.objective.terms(one.denoiser, type(batch)(**{**vars(batch), "plan": plan}))
        assert all(torch.equal(bare[key], planned[key]) for key in bare)


def test_a_plan_counts_the_images_of_each_call(tiny_data: Manifest) -> None:
    one = trainer(tiny_data, "a", "cpu", **REG)
    rows, seen = range(32), []
    one.gradients.denoiser.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    plans = set()
    for step in range(12):
        seen.clear()
        batch = one.batches.at(step, rows)
        plans.add(plan := one.gradients._plan(batch, rows))
        one.gradients.begin()
        one.gradients.add(batch, rows)
        assert seen == [32 + plan[0], *reversed(plan[1:])]
    assert len(plans) > 3


def test_lengths_are_counted() -> None:
    assert longer(torch.tensor([3, 1, 0, 3])) == (3, 2, 2)
    assert longer(torch.tensor([0, 0])) == ()


@on_gpu
@pytest.mark.parametrize("name", GPU_CASES)
@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-3), ("bf16", 0.1)])
def test_recorded_steps_are_the_steps(tiny_data: Manifest, name: str, precision: str, within: float) -> None:
    """Loss, gradients and counted calls of each step, against plain operations from the same weights."""
    changes = {k: {**v} for k, v in GPU_CASES[name].items()}
    changes.setdefault("training", {})["precision"] = precision
    changes.setdefault("network", {})["dropout"] = 0.0
    fast = trainer(tiny_data, "a", "cuda", **changes)
    changes["training"]["precision"] = "float32"
    slow = trainer(tiny_data, "b", "cuda", **changes)
    assert isinstance(fast.gradients, Replayed)
    slow.gradients = Gradients(slow.run, slow.objective, slow.denoiser)
    rows = range(fast.run.training.batch_size)
    steps = 60 if name == "reg" else FIRST + 6
    for step in range(steps):
        slow.denoiser.network.load_state_dict(fast.denoiser.network.state_dict())
        shown = []
        for one in (fast, slow):
            one.gradients.begin()
            if one is slow:
                with plain():
                    part = one.gradients.add(one.batches.at(step, rows), rows)
            else:
                part = one.gradients.add(one.batches.at(step, rows), rows)
            if part.seen is not None:
                one.objective.remember(part.seen)  # type: ignore[attr-defined]
            shown.append(part.shown["loss"])
        own, other = (
            torch.cat([w.grad.flatten() for w in one.gradients.weights if w.grad is not None]) for one in (fast, slow)
        )
        assert torch.isclose(*shown, rtol=max(within / 10, 1e-4))
        assert float((own - other).norm() / other.norm()) < within
        assert fast.gradients.called == slow.gradients.called
        fast.update.step(1e-3)
    assert fast.gradients.recorded >= 4
    assert fast.gradients.records


def test_gradients_of_parts_are_added_up_whatever_their_layout_and_digits() -> None:
    """A weight without a gradient has none, and one that only the second part reaches has that part's."""
    torch.manual_seed(0)
    shapes = (4, 3, 3, 3), (4, 3, 1, 1), (4,), (5, 2), (2, 2, 2, 2), (3,)
    weights = [torch.randn(shape) for shape in shapes]
    weights = [w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for w in weights]
    first = [torch.randn(shape, dtype=torch.bfloat16 if len(shape) > 1 else torch.float32) for shape in shapes]
    first[0] = first[0].to(memory_format=torch.channels_last)  # the last of four dimensions lies otherwise
    second = [torch.randn_like(one) for one in first]
    given = ([*first[:5], None], [*second[:4], None, None]), ([*second[:4], None, None], [*first[:5], None])
    for parts in given:
        one = object.__new__(Replayed)
        one.weights = [torch.nn.Parameter(w.clone()) for w in weights]
        one.flat, one.sums = _in_one_piece(one.weights)
        for _ in range(2):  # a second step begins anew
            one.fresh = True
            for weight in one.weights:
                weight.grad = None
            for part in parts:
                one._take(one._given(part))
            assert one.weights[5].grad is None
            totals = []
            for i, weight in enumerate(one.weights[:5]):
                assert weight.grad is not None
                total = sum(part[i].float() for part in parts if part[i] is not None)  # type: ignore[union-attr]
                totals.append(total)
                assert torch.equal(weight.grad, total)
                assert weight.grad.stride() == weight.stride()
        (held,) = one.held()
        held += 1  # processes add up all gradients in one piece
        assert all(torch.equal(w.grad, total + 1) for w, total in zip(one.weights[:5], totals, strict=True))


@on_gpu
def test_micro_batches_add_up_when_recorded(tiny_data: Manifest) -> None:
    one = trainer(tiny_data, "a", "cuda", training={"precision": "float32"}, network={"dropout": 0.0})
    for step in range(FIRST + 3):
        found = []
        for parts in ([range(16)], [range(8), range(8, 16)]):
            one.gradients.begin()
            for rows in parts:
                one.gradients.add(one.batches.at(step, rows), rows)
            found.append(torch.cat([w.grad.flatten() for w in one.gradients.weights if w.grad is not None]).clone())
        assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-4
    assert one.gradients.recorded


@on_gpu
def test_a_recorded_update_is_the_update(tiny_data: Manifest) -> None:
    """Weights after steps with clipping at a rate that changes, against torch's Adam called step by step."""
    one = trainer(tiny_data, "a", "cuda", training={"precision": "float32"})
    weights = [w.detach().clone().requires_grad_() for w in one.update.weights]
    adam = torch.optim.AdamW(weights, betas=one.run.training.adam_betas, weight_decay=0.0)
    torch.manual_seed(0)
    for weight in one.update.weights:
        weight.grad = torch.zeros_like(weight)
    for step in range(12):
        for own, other in zip(one.update.weights, weights, strict=True):
            own.grad.copy_(torch.randn_like(own))  # type: ignore[union-attr]
            other.grad = own.grad.clone()  # type: ignore[union-attr]
        adam.param_groups[0]["lr"] = 1e-3 / (step + 1)
        norm = torch.nn.utils.clip_grad_norm_(weights, one.run.training.grad_clip or float("inf"))
        adam.step()
        assert torch.isclose(one.update.step(1e-3 / (step + 1)), norm)
    assert one.update.graph is not None
    for own, other in zip(one.update.weights, weights, strict=True):
        assert torch.allclose(own, other, atol=1e-6)


def test_a_checkpoint_of_another_device_is_taken_over(tiny_data: Manifest) -> None:
    """Moments in another memory layout, and settings of another device, change nothing."""
    one, other = (trainer(tiny_data, name, "cpu") for name in ("a", "b"))
    for _ in range(3):
        one.step()
    state = copy.deepcopy(one.update.state_dict())
    foreign = {"param_groups": [{**group, "lr": 7.0, "capturable": True} for group in state["param_groups"]]}  # type: ignore[attr-defined]
    foreign["state"] = {  # type: ignore[assignment]
        key: {
            name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
            for name, value in moments.items()
        }
        for key, moments in state["state"].items()  # type: ignore[attr-defined]
    }
    other.denoiser.network.load_state_dict(one.denoiser.network.state_dict())
    other.update.load_state_dict(foreign)  # type: ignore[arg-type]
    other.done = one.done
    for both in (one, other):
        both.step()
    for mine, theirs in zip(one.update.weights, other.update.weights, strict=True):
        assert torch.equal(mine, theirs)


def test_an_objective_that_fails_leaves_no_hook(tiny_data: Manifest) -> None:
    one = trainer(tiny_data, "a", "cpu")
    rows = range(16)

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    one.objective.terms = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="no"):
        one.gradients.add(one.batches.at(0, rows), rows)
    assert not one.denoiser.network._forward_pre_hooks


def test_dropout_is_on_after_a_grid(tiny_data: Manifest) -> None:
    one = trainer(tiny_data, "a", "cpu", network={"dropout": 0.5})
    one.grid(Path("grid.png"))
    one.step()
    assert one.denoiser.training
    assert one.denoiser.network.training
