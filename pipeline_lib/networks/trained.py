"""Trained weights as a self-describing safetensors file, and back to a denoiser."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pipeline_lib import device
from pipeline_lib.config.base import load_part, parse
from pipeline_lib.config.models import EMA, Run
from pipeline_lib.diffusion import paths
from pipeline_lib.diffusion.denoiser import Denoiser
from pipeline_lib.exits import BadData
from pipeline_lib.networks import WEIGHTS
from pipeline_lib.networks.precision import Halved
from pipeline_lib.networks.replay import Replay
from pipeline_lib.records.files import atomic


def build(run: Run, shape: tuple[int, int, int], classes: int, seed: int = 0) -> Denoiser:
    """The denoiser of a run for images (C,H,W), with weights drawn from `seed`; torch's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(_network(run, shape, classes), paths.build(run.diffusion), run.diffusion)


def parameters(run: Run, shape: tuple[int, int, int], classes: int = 0) -> int:
    """Number of weights of a run's network, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in _network(run, shape, classes).parameters())


def _network(run: Run, shape: tuple[int, int, int], classes: int) -> nn.Module:
    channels, height, width = shape
    if height != width:
        raise BadData(f"images are {height}x{width}; the network takes square ones.")
    module, options = load_part("networks/architectures", run.network)
    outputs = channels * (2 if run.diffusion.learned_variance else 1)
    return module.build(options, height, channels, outputs, classes)


def weights_file(name: str = EMA) -> str:
    """The file of an average in the manifest of a training."""
    return WEIGHTS if name == EMA else f"weights-{name}.safetensors"


def snapshot_file(step: int) -> str:
    """The file of the main average after so many steps."""
    return f"snapshots/step-{step:07d}.safetensors"


def save(
    path: Path,
    weights: Mapping[str, Tensor],
    run: Run,
    shape: tuple[int, int, int],
    classes: int,
    step: int | None = None,
    average: str = EMA,
) -> None:
    """Write weights with all that is needed to use them. Which others were kept beside them changes nothing here.

    `step`: the steps that made them, None: all of the run. `average`: the name of their average in that training.
    """
    content = run.model_dump(mode="json", exclude={"training": {"averages", "snapshots"}})
    length = run.training.average(average).model_dump(mode="json", exclude_none=True)
    state = {"step": run.training.steps if step is None else step, "average": {"name": average, **length}}
    write(path, weights, {"run": content, "shape": list(shape), "classes": classes, **state})


def state_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Step and average of weights by what they say of themselves; nothing of files that were written without."""
    return {key: about[key] for key in ("step", "average") if key in about}


def average_of(about: Mapping[str, Any]) -> str:
    """'ema (decay 0.995)': which average weights are, by what they say of themselves; '' where they do not."""
    known = about.get("average", {})
    length = " ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in known.items() if k != "name")
    return f"{known['name']} ({length})" if known else ""


def write(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what they say of themselves."""
    with atomic(path) as temporary:
        here = {k: v.detach().to("cpu").contiguous() for k, v in weights.items()}
        content = serialise(here, {"about": json.dumps(about, sort_keys=True)})
        temporary.write_bytes(content)  # the library's own writer hides that a disk is full


def about(path: Path) -> dict[str, Any]:
    """What a weights file says of itself, of a run: run, shape, classes, step and average (older ones lack the two).

    Raises BadData where it cannot be read.
    """
    try:
        with safe_open(path, "pt") as stream:
            return json.loads(stream.metadata()["about"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise BadData(f"the weights {path} cannot be read ({error}).") from None


def tensors(path: Path) -> dict[str, Tensor]:
    """The weights in a file."""
    with safe_open(path, "pt") as stream:
        return {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118


def load(path: Path, where: torch.device | str = "cpu") -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser of a weights file, in evaluation mode without gradients, and what the file says about itself."""
    facts = about(path)
    denoiser = build(parse(Run, facts["run"]), tuple(facts["shape"]), facts["classes"])
    denoiser.network.load_state_dict(tensors(path))
    return denoiser.to(where).eval().requires_grad_(False), facts


def ready(path: Path, where: torch.device, precision: str) -> tuple[Denoiser, dict[str, Any]]:
    """As `load`, in a precision and as fast as the device allows."""
    denoiser, facts = load(path, where)
    device.use(precision)
    if where.type == "cuda":
        network = denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        denoiser.bf16 = device.halves(precision, where)
        if denoiser.bf16:
            network = Halved(network).network
        denoiser.network = Replay(network).eval()
    return denoiser, facts
