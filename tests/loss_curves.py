"""One training twice, by the engine of this machine in bfloat16 and by torch's own operations in float32:
`python -m tests.loss_curves MANIFEST [STEPS]`, with the manifest of a `data` stage, writes loss-curves.json.

DDPM, preset `paper`, half the channels. Data, noise and steps of time are the same; dropout masks are not.
"""

import json
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pipeline_lib import bench, device
from pipeline_lib.config.load import merge
from pipeline_lib.data.prepared import Prepared
from pipeline_lib.objectives import ddpm
from pipeline_lib.records.store import Manifest
from pipeline_lib.training.loop import Trainer
from pipeline_lib.training.train import objective

WINDOW = 50  # losses of a mean


def losses(data: Prepared, steps: int, plain: bool) -> dict[str, Any]:
    """Seconds, and the mean loss of every window."""
    network = {**bench.UNET, "channels": 64}
    run = bench.run_of(
        "ddpm", merge(ddpm.PRESETS["paper"], {"training": {"warmup_steps": 500}}), network, 128, not plain
    )
    where, found = device.pick(), []
    with tempfile.TemporaryDirectory() as folder, device.plain() if plain else nullcontext():
        trainer = Trainer(run, objective(run), data, 0, Path(folder), where)
        start = time.perf_counter()
        for _ in range(steps):
            trainer.history.sums = {}
            trainer.step()
            found.append(trainer.history.sums["loss"].clone())
        means = torch.stack(found).unflatten(0, (-1, WINDOW)).mean(1).tolist()
    return {"seconds": time.perf_counter() - start, "engine": trainer.gradients.facts(), "loss": means}


def main(manifest: Path, steps: int = 2000) -> None:
    """Train twice, write, and print how far the curves are apart."""
    if steps < WINDOW or steps % WINDOW:
        sys.exit(f"STEPS is {steps}; take a multiple of {WINDOW}, of which each mean is made.")
    data = Prepared(Manifest.load(manifest))
    torch.set_num_threads(1)
    curves = {name: losses(data, steps, name == "plain") for name in ("bf16", "plain")}
    apart = [abs(a / b - 1) for a, b in zip(curves["bf16"]["loss"], curves["plain"]["loss"], strict=True)]
    Path("loss-curves.json").write_text(json.dumps({"window": WINDOW, **curves}, indent=1))
    print(f"means of {WINDOW} losses differ by {max(apart):.2%} at most, {median(apart):.2%} in the median")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
