"""Tables for the terminal: drawn by rich where somebody looks, plain columns in a pipe or a file."""

import sys
from collections.abc import Iterable, Sequence


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Plain columns, as wide as they must be; those in `left` (places) begin at the left, numbers end at the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    if len(head) - 1 in left:
        widths[-1] = len(head[-1])  # sentences may be long, and nothing stands behind them
    lines = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in (head, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def show(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), colour: int = 0) -> None:
    """Print a table; in a terminal a row has the colour of the word in its column `colour`."""
    if not rows:
        return
    if not sys.stdout.isatty():
        print(columns(head, rows, left), end="")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row), style=COLOURS.get(row[colour], ""))
    Console().print(table)


def lines(sentences: Iterable[str]) -> None:
    """Print sentences, each in a line of its own."""
    for sentence in sentences:
        print(sentence)


COLOURS = {"running": "cyan", "done": "green", "ok": "green", "warn": "yellow", "silent": "yellow", "stopped": "yellow"}
COLOURS |= {"failed": "bold red", "fail": "bold red", "pending": "dim", "not here": "dim"}
