"""The tables of docs/datasets.md that are made and not written; `python -m tests.data.page` writes them anew."""

import contextlib
import re
import tempfile
from pathlib import Path

from pipeline_lib import registry
from pipeline_lib.data.sizes import needs
from tests.data.bad_inputs import CASES, Case, sentence

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
HEADS = {
    "disk": "| recipe | images | download | unpacked | known from | prepared | while preparing, with a holdout |",
    "bad inputs": "| input | recipe | exit code | sentence |",
}


def disk_row(name: str) -> str:
    """What a recipe needs with its default options."""
    found = needs({"name": name, "path": "x"}, holdout=1)
    count = found["count"]
    sizes = [gigabytes(int(found[key])) for key in ("download", "source")]
    prepared = [gigabytes(int(found[key])) for key in ("prepared", "preparing")]
    return f"| `{name}` | {count:,} | {' | '.join(sizes)} | {found['known']} | {' | '.join(prepared)} |"


def bad_row(case: Case) -> str:
    """What the data stage says."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return f"| {case.what} | `{case.recipe}` | {case.code} | {sentence(case).replace('|', '/')} |"


def rows(table: str) -> list[str]:
    """The lines of a table under its head."""
    if table == "bad inputs":
        return [bad_row(case) for case in CASES]
    return [disk_row(name) for name in registry.names("data/recipes") if name not in ("digits", "image-folder")]


def written(table: str, text: str) -> list[str]:
    """The lines of a table under its head, as they stand on the page."""
    found = re.search(rf"<!-- {table} -->\n.*\n\|[-|]+\n((?:\|.*\n)*)", text)
    assert found is not None, table
    return found[1].splitlines()


def gigabytes(size: int) -> str:
    """12.3 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2f} GB"


def main() -> None:
    """Write the tables into the page, behind their marks."""
    text = PAGE.read_text()
    for table, head in HEADS.items():
        lines = [head, re.sub(r"[^|]+", "---", head), *rows(table)]
        text = re.sub(rf"(<!-- {table} -->\n)(?:\|.*\n)*", lambda m, n=lines: m[1] + "\n".join(n) + "\n", text)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
