"""Samples before and after: the same chains of one trained network, drawn by a sampling and by its control."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.config.sampled import pictured
from pipeline_lib.data.grid import GAP
from pipeline_lib.reporting import tuning
from pipeline_lib.reporting.collect import manifest
from pipeline_lib.reporting.samplings import described
from pipeline_lib.reporting.style import save
from pipeline_lib.reporting.summaries import label

PREFIX = "pairs-"
CHAINS = 8
SIDE = 128  # pixels: larger images are averaged over blocks to about this side
INCHES = 0.55  # of an image


@dataclass(frozen=True)
class Pair:
    """The first images of a control and of a sampling at one number of calls, uint8 (chains, C, H, W)."""

    nfe: int
    before: np.ndarray
    after: np.ndarray
    corrections: str


def draw(folder: Path, experiment: Mapping[str, Any], scores: pd.DataFrame) -> None:
    """Write `figures/pairs-<dataset>-<method>-<variant>-<sampling>` of every sampling that has a control.

    Of the first seed of each run, where the control has the same sampling seed and a number of calls in common. Points
    of grids are left out. `scores` are collected.
    """
    for old in (folder / "figures").glob(f"{PREFIX}*"):  # of samplings that are no more
        old.unlink()
    found = _found(folder, experiment, scores)
    runs = {(i["dataset"], i["method"], i["variant"]): i for i in reversed(experiment["instances"])}
    for (dataset, method, variant), one in reversed(runs.items()):
        if experiment["methods"][method]["variants"][variant].get("family"):
            continue
        for name in pictured(experiment, method):
            if pairs := list(_pairs(folder, experiment, one, name, found)):
                about = f"{label(experiment, method, variant)} on {dataset}, seed {one['seed']}"
                control = experiment["samplings"][name]["control"]
                figure = sheet(pairs, about, name, control, described(experiment["samplings"][control]))
                save(figure, folder / "figures" / f"{PREFIX}{dataset}-{method}-{variant}-{name}", png=False)


def _found(folder: Path, experiment: Mapping[str, Any], scores: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """Run, sampling and number of calls -> the correction that was found for them, as JSON."""
    if not tuning.has(experiment):
        return {}
    used = tuning.tables(folder, experiment, scores)[tuning.USED].dropna(subset=["options"])
    keys = ("dataset", "method", "variant", "seed", "sampler", "nfe")
    return dict(zip(zip(*(used[k] for k in keys), strict=True), used["options"], strict=True))


def _pairs(
    folder: Path, experiment: Mapping[str, Any], one: Mapping[str, Any], name: str, found: Mapping[tuple[Any, ...], str]
) -> Iterator[Pair]:
    """The pairs of one run and sampling, fewest calls first; none where its control starts from other noise."""
    sampling = experiment["samplings"][name]
    control = experiment["samplings"].get(sampling["control"])
    if control is None or control["seed"] != sampling["seed"]:
        return
    for nfe in sorted(set(sampling["nfe"]) & set(control["nfe"])):
        before, after = (_images(folder, f"{one['path']}/{s}/sample", nfe) for s in (sampling["control"], name))
        if before is not None and after is not None:
            key = (*(one[k] for k in ("dataset", "method", "variant", "seed")), name, nfe)
            tuned = [_short(json.loads(found[key]))] if json.loads(found.get(key, "null")) else []
            text = described({**sampling, "corrections": [*tuned, *map(_short, sampling["corrections"])]})
            count = min(len(before), len(after))
            yield Pair(nfe, before[:count], after[:count], text)


def _images(folder: Path, place: str, nfe: int) -> np.ndarray | None:
    """The first images of a cell, uint8 (chains, C, H, W); None where it is not drawn, or pruned."""
    made = manifest(folder, place)
    cell = next((c for c in made.facts["cells"] if c["nfe"] == nfe), None) if made else None
    if made is None or cell is None or not (path := Path(made.folder) / cell["images"]).is_file():
        return None
    return np.array(np.load(path, mmap_mode="r")[:CHAINS])


def _short(correction: Mapping[str, Any]) -> dict[str, Any]:
    """A correction with lists and mappings, such as the factors of each step, as their ends."""
    return {key: _ends(value) for key, value in correction.items()}


def _ends(value: Any) -> Any:
    many = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(many, list) and many and all(isinstance(v, float | int) for v in many):
        return f"{min(many):.4g} to {max(many):.4g}"
    return float(f"{value:.6g}") if isinstance(value, float) else value


def sheet(pairs: Sequence[Pair], about: str, name: str, control: str, plain: str) -> Figure:
    """A row for each chain, and two columns for each number of calls: the control, and the sampling."""
    columns = [
        (f"{head}\n{who}", images)
        for pair in pairs
        for head, who, images in ((f"{pair.nfe} calls", control, pair.before), ("", name, pair.after))
    ]
    chains = min(len(images) for _, images in columns)
    size = (max(5.0, INCHES * 1.4 * len(columns)), INCHES * chains + 1.6)
    figure, axes = plt.subplots(1, len(columns), figsize=size, squeeze=False, layout="constrained")
    for (title, images), panel in zip(columns, axes.flat, strict=True):
        panel.imshow(strip(images[:chains]), interpolation="none")
        panel.set_axis_off()
        panel.set_title(title, fontsize=7, loc="left")
    lines = [f"{about}: rows are chains 0 to {chains - 1}, each from the same noise", f"{control}: {plain}"]
    alike = len({pair.corrections for pair in pairs}) == 1
    lines += [
        f"{name}{'' if alike else f', {pair.nfe} calls'}: {pair.corrections}" for pair in pairs[: 1 if alike else None]
    ]
    text = "\n".join(fill(line, int(18 * size[0])) for line in lines)
    figure.supxlabel(text, fontsize=7.5, x=0.01, ha="left")
    return figure


def strip(images: np.ndarray) -> np.ndarray:
    """Images uint8 (N, C, H, W) above each other with white gaps, as one picture (N (H + gap), W, 3)."""
    block = max(1, min(images.shape[2:]) // SIDE)
    count, channels, height, width = (*images.shape[:2], *(side // block for side in images.shape[2:]))
    cut = images[:, :, : height * block, : width * block]
    small = cut.reshape(count, channels, height, block, width, block).mean((3, 5)).round().astype(np.uint8)
    apart = np.pad(small, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    colours = np.broadcast_to(apart, (count, 3, height + GAP, width))
    return colours.transpose(0, 2, 3, 1).reshape(-1, width, 3)
