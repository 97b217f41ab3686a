"""How all figures look, and how they are saved."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline_lib.records.files import atomic

# Okabe and Ito (2008): told apart by colour-blind readers; a second round of methods repeats it with other dashes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (3, 1.2, 1, 1.2)), (0, (1, 1)))
DPI = 200  # of PNG files
GREY = "#6b6b6b"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.5,
    "axes.formatter.limits": (-2, 4),
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pipeline_lib",
}


def legend(figure: Figure, axes: Any) -> None:
    """One legend for all panels, each name once, below them; a figure narrower than its longest name is widened."""
    named = {name: line for a in axes for line, name in zip(*a.get_legend_handles_labels(), strict=True)}
    null = {k: named.pop(k) for k in [k for k in named if k.startswith("null,")]}
    named |= null
    width = 0.5 + 0.065 * max(map(len, named))  # inches that the longest name takes
    figure.set_figwidth(max(figure.get_figwidth(), width))
    columns = max(1, min(len(named), int(figure.get_figwidth() // width)))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, fontsize=7.5)


def empty(title: str) -> Figure:
    """A figure that says that there is nothing yet."""
    figure, axes = plt.subplots(figsize=(3.4, 1.6), layout="constrained")
    axes.set_axis_off()
    axes.set_title(title, loc="left")
    axes.text(0.5, 0.5, "no data yet", ha="center", va="center", fontsize=11, color=GREY)
    return figure


def save(figure: Figure, path: Path, png: bool = True) -> None:
    """As SVG, whose text stays text, and as PNG unless nobody looks at that; equal figures give equal bytes.

    By the canvases themselves: `savefig` draws every figure once more for each file, to lay it out.
    """
    figure.set_dpi(DPI)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")  # laid out once, the same in both
    if png:
        with atomic(path.with_suffix(".png")) as temporary, temporary.open("wb") as stream:
            FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    with atomic(path.with_suffix(".svg")) as temporary, temporary.open("wb") as stream:
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    plt.close(figure)
