"""Run all mutants and write docs/mutants.md; ends with 1, and writes nothing, where one survives or a test
fails anyway."""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import page
from tests.mutants.run import failure_without_mistake, killer
from tests.mutants.table import MUTANTS, Mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="mutants that run at once (default 2)")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        whole = Path(folder) / "as-it-is"  # all start from this copy, so that edits meanwhile do not reach them
        if broken := failure_without_mistake(whole):
            print(f"{broken} fails without a mistake", file=sys.stderr)
            return 1

        def run(mutant: Mutant) -> str | None:
            found = killer(mutant, Path(folder) / mutant.name, whole)
            print(f"{mutant.name}: {found or 'SURVIVES'}", flush=True)
            return found

        killers = dict(zip([m.name for m in MUTANTS], pool.map(run, MUTANTS), strict=True))
    killed = {name: test for name, test in killers.items() if test}
    if len(killed) < len(killers):
        print(f"{len(killers) - len(killed)} of {len(killers)} survive", file=sys.stderr)
        return 1
    page.write(killed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
